package sandbox

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// Files that were handed on stay open whoever asked for them before.
func TestFiles(t *testing.T) {
	const child = "GAUNTLET_TEST_FILES"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestFiles$")
		cmd.Env = append(os.Environ(), child+"=1")
		for range 3 { // the pipe, and two more
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	handed = 2
	kept := Files()[1]
	for range 10 {
		runtime.GC() // what nobody refers to is closed some time after
		if _, err := Files()[0].Stat(); err != nil {
			t.Fatal(err)
		}
	}
	if again := Files()[1]; again != kept {
		t.Errorf("%p, and %p before", again, kept)
	}
}
