package pairs

import (
	"strings"

	"gauntlet/lab/oracle"
	"gauntlet/lab/path"
)

// kind is a class of papers.md section 4 with the preset that stands for it.
type kind struct{ class, preset string }

// kinds are the axes of the table, in its order.
var kinds = []kind{
	{"O", "open"}, {"F", "full-cone"}, {"R", "restricted-cone"}, {"P", "port-restricted"},
	{"S", "symmetric"}, {"Sp", "symmetric-sequential"}, {"U", "udp-blocked"},
}

// written is the table of papers.md section 4, word for word: rows are callers,
// columns callees, in the order of kinds. "predict" is punched where the ends
// predict ports, and relayed where they don't.
var written = map[string]string{
	"O":  "direct  direct  reverse  reverse  reverse  reverse  rTCP",
	"F":  "direct  direct  reverse  reverse  reverse  reverse  relay",
	"R":  "direct  direct  punched  punched  punched  punched  relay",
	"P":  "direct  direct  punched  punched  relay    predict  relay",
	"S":  "direct  direct  punched  relay    relay    relay    relay",
	"Sp": "direct  direct  punched  predict  relay    predict  relay",
	"U":  "dTCP    relay   relay    relay    relay    relay    relay",
}

// Written returns what the table says of the media of two classes, in the words
// of package path; false for classes that it doesn't have. Expired bindings
// change nothing in it.
func Written(caller, callee string, predict bool) (oracle.Route, bool) {
	row, column := strings.Fields(written[caller]), -1
	for i, k := range kinds {
		if k.class == callee {
			column = i
		}
	}
	if column < 0 || len(row) == 0 {
		return oracle.Route{}, false
	}
	leg := func(class string) string {
		if class == "U" {
			return "tcp"
		}
		return "udp"
	}
	relayed := oracle.Route{Path: path.Relayed, Transports: []string{leg(caller), leg(callee)}}
	switch row[column] {
	case "direct":
		return oracle.Route{Path: path.Direct, Transports: []string{"udp"}}, true
	case "reverse":
		return oracle.Route{Path: path.Reversed, Transports: []string{"udp"}}, true
	case "dTCP":
		return oracle.Route{Path: path.Direct, Transports: []string{"tcp"}}, true
	case "rTCP":
		return oracle.Route{Path: path.Reversed, Transports: []string{"tcp"}}, true
	case "relay":
		return relayed, true
	case "predict":
		if !predict {
			return relayed, true
		}
	}
	return oracle.Route{Path: path.Punched, Transports: []string{"udp"}}, true
}
