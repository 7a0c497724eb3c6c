package scenario

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Mistake is one thing wrong in a file, with its place.
type Mistake struct {
	File         string
	Line, Column int // from 1; 0 where the file as a whole is meant
	Message      string
}

func (m Mistake) Error() string {
	if m.Line == 0 {
		return m.File + ": " + m.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", m.File, m.Line, m.Column, m.Message)
}

// Mistakes is everything wrong in a file, in the order of the places.
type Mistakes []Mistake

func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// decoder fills Go values from YAML nodes, strictly, and gathers every mistake
// instead of stopping at the first.
type decoder struct {
	file     string
	mistakes Mistakes
}

// nodeDecoder is a value that reads itself from a node.
type nodeDecoder interface {
	decodeNode(d *decoder, n *yaml.Node)
}

func (d *decoder) wrong(n *yaml.Node, format string, args ...any) {
	d.mistakes = append(d.mistakes, Mistake{File: d.file, Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...)})
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	nodeType     = reflect.TypeFor[nodeDecoder]()
)

// decode reads n into v, which must be settable.
func (d *decoder) decode(n *yaml.Node, v reflect.Value) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if v.Kind() == reflect.Pointer {
		if isNull(n) {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem())
		return
	}
	switch p := v.Addr(); {
	case p.Type().Implements(nodeType):
		p.Interface().(nodeDecoder).decodeNode(d, n)
		return
	case v.Type() == durationType:
		d.duration(n, v)
		return
	case p.Type().Implements(textType):
		if !d.scalar(n, "text") {
			return
		}
		if err := p.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
			d.wrong(n, "%v", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v)
	case reflect.Map:
		d.mapping(n, v)
	case reflect.Slice:
		d.sequence(n, v)
	case reflect.String:
		if d.scalar(n, "text") {
			v.SetString(n.Value)
		}
	case reflect.Bool:
		if b, err := strconv.ParseBool(n.Value); d.scalar(n, "true or false") {
			if err != nil || n.Tag != "!!bool" {
				d.wrong(n, "%q is not true or false", n.Value)
				return
			}
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int64:
		if i, err := strconv.ParseInt(n.Value, 10, 64); d.scalar(n, "a whole number") {
			if err != nil || v.OverflowInt(i) {
				d.wrong(n, "%q is not a whole number", n.Value)
				return
			}
			v.SetInt(i)
		}
	default:
		panic("scenario: no decoding into " + v.Type().String())
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (d *decoder) scalar(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.wrong(n, "expected %s, found %s", what, kind(n))
		return false
	}
	return true
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value) {
	if !d.scalar(n, "a duration such as 3s") {
		return
	}
	t, err := time.ParseDuration(n.Value)
	if err != nil || t < 0 {
		d.wrong(n, "%q is not a duration such as 500ms, 3s or 2m", n.Value)
		return
	}
	v.SetInt(int64(t))
}

// pairs calls f for each key of a mapping once, and reports the keys that come
// twice.
func (d *decoder) pairs(n *yaml.Node, f func(key, value *yaml.Node)) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.wrong(n, "expected a mapping (key: value), found %s", kind(n))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.wrong(key, "expected a name as the key, found %s", kind(key))
			continue
		}
		if line, twice := first[key.Value]; twice {
			d.wrong(key, "key %q stands here for the second time; the first is on line %d", key.Value, line)
			continue
		}
		first[key.Value] = key.Line
		f(key, value)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value) {
	fields := map[string][]int{}
	fieldsOf(v.Type(), func(name string, index []int) { fields[name] = index })
	d.pairs(n, func(key, value *yaml.Node) {
		i, ok := fields[key.Value]
		if !ok {
			d.wrong(key, "unknown key %q; expected %s", key.Value, oneOf(v.Type()))
			return
		}
		d.decode(value, v.FieldByIndex(i))
	})
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, func(key, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), item)
	})
}

// sequence reads a list; a single value stands for a list of one.
func (d *decoder) sequence(n *yaml.Node, v reflect.Value) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	} else if isNull(n) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(items))) // an empty list is not one that was left out
	for _, item := range items {
		e := reflect.New(v.Type().Elem()).Elem()
		d.decode(item, e)
		v.Set(reflect.Append(v, e))
	}
}

// decodeInto is decode for a pointer.
func (d *decoder) decodeInto(n *yaml.Node, p any) { d.decode(n, reflect.ValueOf(p).Elem()) }

// fieldsOf calls f with the YAML name of each field of a struct, those of
// inlined structs among them.
func fieldsOf(t reflect.Type, f func(name string, index []int)) {
	for i := range t.NumField() {
		name, option, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case option == "inline":
			fieldsOf(t.Field(i).Type, func(name string, index []int) { f(name, append([]int{i}, index...)) })
		case name != "" && name != "-":
			f(name, []int{i})
		}
	}
}

func oneOf(t reflect.Type) string {
	var names []string
	fieldsOf(t, func(name string, _ []int) { names = append(names, name) })
	return list(names)
}

// list writes "a, b or c".
func list(names []string) string {
	switch len(names) {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.ScalarNode:
		return fmt.Sprintf("%q", n.Value)
	}
	return "something else"
}

// elsewhere leaves out those at the place of one of others: what is said of a value
// that couldn't be read is said of its zero.
func (ms Mistakes) elsewhere(others Mistakes) Mistakes {
	return slices.DeleteFunc(ms, func(m Mistake) bool {
		return slices.ContainsFunc(others, func(o Mistake) bool { return m.Line == o.Line && m.Column == o.Column })
	})
}

// sorted returns the mistakes in the order of their places. One that all names
// of a range share is said once.
func (ms Mistakes) sorted() Mistakes {
	slices.SortStableFunc(ms, func(a, b Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.Compact(ms)
}
