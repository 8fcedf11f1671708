package place

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestThePlaceNeedsNoEnvironment(t *testing.T) {
	t.Setenv("HOME", "/somewhere/else")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	with, err := Database()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Unsetenv("HOME"); err != nil {
		t.Fatal(err)
	}
	without, err := Database()
	config, err2 := Config()
	home, err3 := Home()
	if err != nil || err2 != nil || err3 != nil || with != without || without != filepath.Join(home, ".local/state/pixels/pixels.db") || config != filepath.Join(home, ".config/pixels") {
		t.Errorf("with HOME %s, without %s, %s, %v %v %v", with, without, config, err, err2, err3)
	}
	t.Setenv("XDG_STATE_HOME", "/state")
	t.Setenv("XDG_CONFIG_HOME", "not/absolute")
	if p, err := Database(); err != nil || p != "/state/pixels/pixels.db" {
		t.Error(p, err)
	}
	if p, err := Config(); err != nil || p != config {
		t.Error(p, err)
	}
}

func TestOtherPlacesAreSeen(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name, database)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		paths = append(paths, path)
	}
	if got := Others(paths[0]); slices.Contains(got, paths[0]) || !slices.Contains(got, paths[1]) {
		t.Errorf("%v", got)
	}
}
