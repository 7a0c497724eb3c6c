package internet

import "gauntlet/topo/ns"

// Option changes how an internet is stood up.
type Option func(*Internet)

// Logs has the programs of boxes write their logs into a folder, which is made
// where there is one to be written.
func Logs(dir string) Option { return func(i *Internet) { i.logs = dir } }

// Seed decides what links do at random.
func Seed(seed uint64) Option { return func(i *Internet) { i.seed = seed } }

// Given are the namespaces of some hosts that are there already, see
// [topo.BuildIn].
func Given(spaces map[string]*ns.Handle) Option { return func(i *Internet) { i.given = spaces } }
