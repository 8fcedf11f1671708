package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// conforms are the scenarios of the protocol's own test suite that hold for any server with tools and prompts, by the version of the protocol.
// The others want tools and resources that are there to be tested alone.
var conforms = map[string][]string{
	"2025-11-25": {"server-initialize", "server-session-lifecycle", "ping", "tools-list", "prompts-list", "server-sse-multiple-streams", "dns-rebinding-protection"},
	"2026-07-28": {"tools-list", "prompts-list", "server-sse-multiple-streams", "dns-rebinding-protection", "http-header-validation"},
}

// conformance is a run of the official conformance suite.
func conformance(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/conformance")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node")); err != nil {
		t.Skip("the conformance suite is not installed: scripts/conformance.sh does it, and `make test` runs that")
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "node"), append([]string{filepath.Join(dir, "node_modules/@modelcontextprotocol/conformance/dist/index.js")}, args...)...)
	cmd.Dir = t.TempDir()
	return cmd
}

// The official conformance suite, which we did not write, against the product's own server.
func TestConformance(t *testing.T) {
	t.Parallel()
	conformance(t)
	way := conformanceWay(t)
	for version, scenarios := range conforms {
		for _, scenario := range scenarios {
			t.Run(version+" "+scenario, func(t *testing.T) {
				out, err := conformance(t, "server", "--url", way+mcpPath, "--scenario", scenario, "--spec-version", version).CombinedOutput()
				if err != nil || !strings.Contains(string(out), " 0 failed") {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}
