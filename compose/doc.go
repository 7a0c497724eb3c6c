// Package compose puts nodes in containers: through the API of the Docker
// engine of this machine it builds an image from the running binary, starts
// each node in a container of its own, and hands the container's network
// namespace over to be filled. It knows nothing of what runs in them.
//
// A container's standard input is its leash: it is attached once, and ends
// with the connection to the engine, so a node that keeps to the control
// protocol exits when whoever drives it is gone, however it went. What doesn't
// keep to it is removed by the reaper. Everything that is made carries
// [Label], by which Clean finds what was left all the same.
package compose

// Labels of everything made here.
const (
	// Label is on every image, container, network, volume and service.
	Label = "gauntlet"
	// RunLabel tells the runs apart.
	RunLabel = Label + ".run"
)

// Labels of the containers of a compose file, by which [Engine.Project] finds
// them and knows what runs in each.
const (
	NodeLabel     = Label + ".node"     // the node's name
	RoleLabel     = Label + ".role"     // and role
	ProfileLabel  = Label + ".profile"  // of the numbers of its protocols
	SettingsLabel = Label + ".settings" // JSON that the node gets as it is
	PublicLabel   = Label + ".public"   // true: its host is on the internet
	RouterLabel   = Label + ".router"   // the box's name, on a router
)
