package incus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lxc/incus/v6/shared/api"
	localtls "github.com/lxc/incus/v6/shared/tls"

	"pixels/internal/testenv/incushttps"
	"pixels/sandbox"
	"pixels/sandbox/sandboxtest"
)

// testName is what a test calls what is its own in all of Incus.
func testName() string { return fmt.Sprintf("pixels-test-%d", os.Getpid()) }

// overHTTPS makes the Incus of this machine answer on a port of the loopback, trust a certificate of the test, and have a
// project for it. It returns how to reach all that. What was there before is there again afterwards.
func overHTTPS(t *testing.T) Config {
	t.Helper()
	local := realBackend(t).server
	a := incushttps.Open(t, local.with(context.Background()), testName())
	c := Config{Remote: "https://" + a.Address, Project: testName(), ClientCert: a.ClientCert, ClientKey: a.ClientKey, ServerCert: a.ServerCert}
	createProject(t, local, c.Project)
	return c
}

// createProject makes a project, which is gone afterwards. Its images and networks are those of the default project, its
// instances are its own.
func createProject(t testing.TB, local *daemon, name string) {
	t.Helper()
	err := local.with(context.Background()).CreateProject(api.ProjectsPost{Name: name, ProjectPut: api.ProjectPut{Config: map[string]string{
		"features.images": "false", "features.networks": "false", "features.profiles": "false", "features.storage.volumes": "false", "features.storage.buckets": "false",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		own := projectOf(local, name)
		if left, err := own.with(context.Background()).GetInstanceNames(api.InstanceTypeAny); err != nil || len(left) > 0 {
			t.Errorf("in the project are left %v, %v", left, err)
			for _, id := range left {
				_ = remove(context.Background(), own, id) // the project's deletion tells
			}
		}
		if err := local.with(context.Background()).DeleteProject(name); err != nil {
			t.Error(err)
		}
	})
}

// withGateway makes the project of c a network and a gateway of its own.
func withGateway(t *testing.T, c Config) Config {
	t.Helper()
	shared, err := OpenProvisioner(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.CreateGateway(t.Context()); err == nil || !strings.Contains(err.Error(), "a network of its own") {
		t.Errorf("a second gateway on a network: %v", err)
	}
	c.Network, c.stock = fmt.Sprintf("pxtest%d", os.Getpid()), stock{4, 12}
	p, err := OpenProvisioner(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.DeleteGateway(context.Background()), p.DeleteNetwork(context.Background())); err != nil {
			t.Error(err)
		}
	})
	if err := p.CreateNetwork(context.Background(), "10.166.240.1/24", 0); err != nil {
		t.Fatal(err)
	}
	if err := p.CreateGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRemoteIncus(t *testing.T) {
	t.Parallel()
	c := withGateway(t, overHTTPS(t))
	b := openBackend(t, c)
	t.Run("suite", func(t *testing.T) { // ends when its stories have
		sandboxtest.Run(t, sandboxtest.Subject{Backend: b, Image: b.config.Image, Owner: "test-remote", Reached: true})
	})
	live(t, b)
	if _, err := OpenProvisioner(t.Context(), c); err != nil {
		t.Errorf("set-up can't reach it: %v", err)
	}
	// Nothing of it is in the default project.
	list, err := realBackend(t).server.with(context.Background()).GetInstances(api.InstanceTypeContainer)
	if err != nil {
		t.Fatal(err)
	}
	for _, inst := range list {
		if strings.HasPrefix(inst.Config[ownerKey], "test-remote") {
			t.Errorf("in the default project there is %s of %s", inst.Name, inst.Config[ownerKey])
		}
	}

	other, otherKey, err := localtls.GenerateMemCert(true, false)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) string {
		path := filepath.Join(t.TempDir(), "pem")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stranger, pinned, lacking := c, c, c
	stranger.ClientCert, stranger.ClientKey = write(other), write(otherKey)
	pinned.ServerCert = write(other)
	lacking.ServerCert = ""
	for name, wrong := range map[string]Config{"an unknown client": stranger, "another server's certificate": pinned} {
		b, err := OpenBackend(wrong)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if list, err := b.List(t.Context(), "test-remote"); err == nil {
			t.Errorf("with %s it lists %v", name, list)
		}
		if _, err := OpenProvisioner(t.Context(), wrong); err == nil {
			t.Errorf("with %s it can be set up", name)
		}
		b.Close()
	}
	if _, err := OpenBackend(lacking); err == nil {
		t.Error("without the server's certificate it connects")
	}
	gone := c
	gone.Remote = "https://127.0.0.1:1"
	nobody, err := OpenBackend(gone)
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	if _, err := nobody.List(t.Context(), "test-remote"); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("where nobody listens: %v", err)
	}
}
