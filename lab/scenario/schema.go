package scenario

import (
	"fmt"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"
)

// Schema is the JSON Schema of a scenario file, for editors. sources are the
// folders of the packages whose types a file is made of, from the current one;
// their comments become descriptions.
func Schema(sources ...string) (*jsonschema.Schema, error) {
	// As the decoder reads files: YAML's names, nothing required, no other keys.
	r := &jsonschema.Reflector{
		FieldNameTag:               "yaml",
		Anonymous:                  true,
		DoNotReference:             true,
		RequiredFromJSONSchemaTags: true,
	}
	r.Mapper = func(t reflect.Type) *jsonschema.Schema {
		if t == reflect.TypeFor[time.Duration]() {
			return &jsonschema.Schema{Type: "string", Pattern: `^([0-9.]+(ns|us|ms|s|m|h))+$`, Description: "a duration such as 500ms or 3s"}
		}
		if n, ok := reflect.Zero(t).Interface().(named); ok {
			value := r.ReflectFromType(n.valueType())
			value.Version = ""
			return &jsonschema.Schema{Type: "object", AdditionalProperties: value}
		}
		return nil
	}
	for _, source := range sources {
		if err := r.AddGoComments("gauntlet", source); err != nil {
			return nil, fmt.Errorf("schema: comments of %s: %w", source, err)
		}
	}
	s := r.Reflect(&Scenario{})
	s.Title = "Gauntlet scenario"
	return s, nil
}

// named is a mapping from names to values of one type.
type named interface{ valueType() reflect.Type }

func (Named[T]) valueType() reflect.Type { return reflect.TypeFor[T]() }
