package capture

import "gauntlet/topo/ns"

// TryLog binds a log group in the namespace and lets go of it: whether this
// kernel logs drops at all.
func TryLog(namespace *ns.Handle) error {
	l, err := openDropLog(namespace, "", 1, nil)
	if err != nil {
		return err
	}
	return l.close()
}
