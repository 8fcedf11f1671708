package incus

import (
	"errors"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/lxc/incus/v6/shared/api"
)

func TestOnlyOurKeysMarkAnInstance(t *testing.T) {
	for _, c := range []struct {
		config map[string]string
		want   bool
	}{
		{nil, false},
		{map[string]string{"image.os": "debian", "volatile.uuid": "x"}, false},
		// What Incus copies from our image onto anyone's instance is no mark of ours.
		{map[string]string{"image.user.pixels.version": "x"}, false},
		{map[string]string{"user.pixelsomething": "x"}, false},
		{map[string]string{"user.pixels.owner": ""}, true},
	} {
		if got := ours(c.config); got != c.want {
			t.Errorf("ours(%v) = %v, want %v", c.config, got, c.want)
		}
	}
}

func TestMissingIsToldFromOtherFailures(t *testing.T) {
	if !missing(api.StatusErrorf(http.StatusNotFound, "Storage pool not found")) {
		t.Error("a 404 is missing")
	}
	if missing(nil) || missing(errors.New("disk full")) || missing(api.StatusErrorf(http.StatusForbidden, "no")) {
		t.Error("anything else is not")
	}
}

func TestUnreachableIncusIsSaidSo(t *testing.T) {
	_, err := OpenProvisioner(t.Context(), Config{Socket: filepath.Join(t.TempDir(), "unix.socket")})
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}
