package incus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"
	"golang.org/x/sync/errgroup"
)

// ofTest is a name or an owner that a test gave, with the process of the test as its end.
var ofTest = regexp.MustCompile(`^(?:pxlab|pxtest|pixels-test-|pixels-full-|pixels-gateway-pxlab|pixels-gateway-pxtest|test-(?:[a-z]+-)?|bench-(?:raw-)?)(\d+)(?:-\d+)?$`)

// abandoned says whether what has the name is of a test whose process is gone.
func abandoned(name string) bool {
	match := ofTest.FindStringSubmatch(name)
	if match == nil {
		return false
	}
	program, err := os.Readlink("/proc/" + match[1] + "/exe")
	return err != nil || !strings.Contains(filepath.Base(program), ".test")
}

// clearLeftovers removes what a killed run left: its networks would keep the addresses that tests need.
func clearLeftovers(ctx context.Context, server client.InstanceServer) error {
	projects, err := server.GetProjectNames()
	if err != nil {
		return err
	}
	for _, name := range projects {
		if abandoned(name) {
			own := server.UseProject(name)
			if err := removeWhere(ctx, own, func(api.Instance) bool { return true }); err != nil {
				return err
			}
			if err := server.DeleteProject(name); err != nil {
				return err
			}
		}
	}
	err = removeWhere(ctx, server, func(i api.Instance) bool {
		return abandoned(i.Name) || abandoned(i.Config[ownerKey]) || abandoned(i.Config[networkKey])
	})
	if err != nil {
		return err
	}
	networks, err := server.GetNetworkNames()
	if err != nil {
		return err
	}
	for _, name := range networks {
		if abandoned(name) {
			if err := server.DeleteNetwork(name); err != nil && !missing(err) {
				return err
			}
		}
	}
	pools, err := server.GetStoragePoolNames()
	if err != nil {
		return err
	}
	for _, name := range pools {
		if abandoned(name) {
			if err := deletePool(server, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeWhere(ctx context.Context, server client.InstanceServer, which func(api.Instance) bool) error {
	instances, err := server.GetInstances(api.InstanceTypeAny)
	if err != nil {
		return err
	}
	var removing errgroup.Group
	removing.SetLimit(8)
	for _, i := range instances {
		if which(i) {
			removing.Go(func() error { return remove(ctx, server, i.Name) })
		}
	}
	return removing.Wait()
}

// deletePool deletes a pool with the copies of images that are in it.
func deletePool(server client.InstanceServer, name string) error {
	volumes, err := server.GetStoragePoolVolumes(name)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.Type == "image" {
			if err := server.DeleteStoragePoolVolume(name, v.Type, v.Name); err != nil {
				return err
			}
		}
	}
	return server.DeleteStoragePool(name)
}

func TestOnlyWhatAKilledRunLeftIsCleared(t *testing.T) {
	gone := "4999999" // above what the kernel gives a process
	for _, name := range []string{"pxlab", "pxtest", "pixels-test-", "pixels-full-", "pixels-gateway-pxlab", "test-", "test-incus-", "bench-"} {
		if !abandoned(name + gone) {
			t.Errorf("%s%s stays", name, gone)
		}
		if abandoned(fmt.Sprint(name, os.Getpid())) {
			t.Errorf("%s of this process is cleared", name)
		}
	}
	if !abandoned("bench-raw-" + gone + "-3") {
		t.Error("an instance of a bench stays")
	}
	for _, name := range []string{"", "pixels", "pixels-gateway-pixels", "px-test-" + gone, "mytest-" + gone, "web-" + gone, "incusbr0"} {
		if abandoned(name) {
			t.Errorf("%s is cleared", name)
		}
	}
}
