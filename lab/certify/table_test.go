package certify

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"gauntlet/middlebox"
	"gauntlet/middlebox/probe"
)

// Every property has a column, in which what is measured stands beside what is
// declared.
func TestTableColumns(t *testing.T) {
	fields := reflect.TypeFor[probe.Properties]()
	for i := range fields.NumField() {
		var p probe.Properties
		switch f := reflect.ValueOf(&p).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("word")
		case reflect.Int:
			f.SetInt(7)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{"word"}))
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		default:
			t.Fatalf("%s: what is a %v?", fields.Field(i).Name, f.Kind())
		}
		shown := 0
		for _, columns := range tables {
			for _, c := range columns {
				if c.of(p) != "" {
					shown++
				}
			}
		}
		if shown != 1 {
			t.Errorf("%s is shown in %d columns", fields.Field(i).Name, shown)
		}
	}
}

func TestWriteTables(t *testing.T) {
	b, _ := middlebox.Preset("port-restricted")
	b.PortMapping = true
	declared := probe.Declared(b)
	measured := declared
	measured.TCPRefusal, measured.TCPPortMapping = "reset", []string{"pcp"}
	var out bytes.Buffer
	WriteTables(&out, []Certificate{{
		Label: "box", Declared: declared, Measured: measured, Differences: probe.Differences(declared, measured),
	}})
	for _, want := range []string{
		"reset (declared silence)", "pcp (declared nat-pmp pcp upnp)", "tcp inward, tcp outward, udp inward, udp outward", "fail",
		"box: tcp_refusal: declared silence, measured reset", "box: tcp_port_mapping: declared nat-pmp, pcp, upnp, measured pcp",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "udp rate") {
		t.Errorf("a column that says nothing in\n%s", out.String())
	}
}
