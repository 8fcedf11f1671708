package program

import "testing"

func TestTheNameIsWhatWasTyped(t *testing.T) {
	for path, want := range map[string]string{
		"pixels": "pixels", "/usr/local/bin/pixels": "pixels", "./bin/pixels-mcp": "pixels-mcp", "pixels-mcp": "pixels-mcp",
		"": "pixels-mcp", "/tmp/pixels-dir/other": "pixels-mcp", "pixels-2": "pixels-mcp", "pixels.exe": "pixels",
	} {
		if got := of(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
}
