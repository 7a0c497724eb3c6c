package scenario

// MistakeAt is a mistake at a place of a file: the keys and indexes that lead
// there from its top, such as "topology", "hosts", "alice", "link". The file's
// data is as it was parsed.
func MistakeAt(file string, data []byte, path []string, message string) Mistake {
	m := Mistake{File: file, Message: message}
	if root, err := document(data); err == nil {
		n := at(root, path...)
		m.Line, m.Column = n.Line, n.Column
	}
	return m
}
