package verdict

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
)

// Count is a condition on a number: "2" asks for exactly two, ">=2" for at
// least, "<=2" for at most two, ">2" and "<2" likewise. The zero value asks
// nothing.
type Count struct {
	operator string // "", "==", ">=", "<=", ">", "<"
	number   int
}

// ParseCount reads a count.
func ParseCount(text string) (Count, error) {
	rest := strings.TrimSpace(text)
	c := Count{operator: "=="}
	for _, operator := range []string{">=", "<=", ">", "<"} {
		if after, ok := strings.CutPrefix(rest, operator); ok {
			c.operator, rest = operator, strings.TrimSpace(after)
			break
		}
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 || strings.HasPrefix(rest, "+") {
		return Count{}, fmt.Errorf("count %q: expected a number that is not negative, such as 2, >=2, <=2, >2 or <2", text)
	}
	c.number = n
	return c, nil
}

// Asked says whether the count asks anything.
func (c Count) Asked() bool { return c.operator != "" }

// Equal says whether both ask the same.
func (c Count) Equal(other Count) bool { return c == other }

// IsZero is Asked's opposite; encoders use it to leave the count out.
func (c Count) IsZero() bool { return c.operator == "" }

// Holds says whether n meets the condition; a count that asks nothing always
// holds.
func (c Count) Holds(n int) bool {
	switch c.operator {
	case "==":
		return n == c.number
	case ">=":
		return n >= c.number
	case "<=":
		return n <= c.number
	case ">":
		return n > c.number
	case "<":
		return n < c.number
	}
	return true
}

// String gives the text that ParseCount reads, "" for the zero value.
func (c Count) String() string {
	switch c.operator {
	case "":
		return ""
	case "==":
		return strconv.Itoa(c.number)
	}
	return c.operator + strconv.Itoa(c.number)
}

// MarshalText gives String.
func (c Count) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseCount; the empty text asks nothing.
func (c *Count) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*c = Count{}
		return nil
	}
	parsed, err := ParseCount(string(text))
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}

// JSONSchema describes a count for editors: a bare number, or a text with an
// operator.
func (Count) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{
		OneOf: []*jsonschema.Schema{
			{Type: "integer", Minimum: "0"},
			{Type: "string", Pattern: `^(>=|<=|>|<)? *[0-9]+$`},
		},
		Description: "a number, or a condition on one such as >=2",
	}
}
