package certify

import (
	"cmp"

	"gauntlet/lab/internet"
)

// Unserved are certificates of the boxes whose programs don't run now: what
// they were measured to be holds no more.
func Unserved(i *internet.Internet) (certificates []Certificate) {
	for _, box := range i.Boxes() {
		if reasons := i.Unserved(box.Name); len(reasons) > 0 {
			certificates = append(certificates, Certificate{
				Box: box.Name, Boxes: []string{box.Name}, Label: cmp.Or(box.Label, "custom"),
				Differences: reasons, Unmeasured: true,
			})
		}
	}
	return certificates
}
