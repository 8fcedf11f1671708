package incus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/internal/testenv"
	"pixels/sandbox/sandboxtest"
)

// realBackend returns a Backend on the Incus of this machine. Where there is none, testenv.NoIncus ends the test.
func realBackend(t *testing.T) *Backend {
	t.Helper()
	testenv.NeedsIncus(t)
	p, err := OpenProvisioner(t.Context(), Config{})
	if err == nil {
		var image *ProvisionImage
		if image, err = p.Image(context.Background(), p.Config().Image); err == nil && image == nil {
			err = errors.New("there is no base image")
		}
	}
	if err != nil {
		testenv.NoIncus(t, err)
	}
	return openBackend(t, Config{})
}

// openBackend opens a Backend for a test. Where that fails it is told what the errors of the Backend hid from users.
func openBackend(t *testing.T, c Config) *Backend {
	t.Helper()
	var mu sync.Mutex
	var told []string
	c.cause = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%s %v", time.Now().Format(time.StampMilli), err))
	}
	b, err := OpenBackend(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		mu.Lock()
		defer mu.Unlock()
		if t.Failed() && len(told) > 0 {
			t.Logf("what Incus said:\n%s", strings.Join(told[max(0, len(told)-100):], "\n"))
		}
	})
	return b
}

// images are those that sandboxes are made from: with our own first process, and with systemd.
func images(t *testing.T, b *Backend) map[string]string {
	t.Helper()
	return map[string]string{"base": b.config.Image, "base-systemd": b.config.Image + "-systemd"}
}

func TestIncus(t *testing.T) {
	t.Parallel()
	b := realBackend(t)
	for name, image := range images(t, b) {
		t.Run(name, func(t *testing.T) {
			sandboxtest.Run(t, sandboxtest.Subject{Backend: b, Image: image, Owner: fmt.Sprintf("test-%s-%d", strings.TrimPrefix(name, "base-"), os.Getpid())})
		})
	}
}
