package incus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pixels/internal/testenv/incushttps"

	client "github.com/lxc/incus/v6/client"
	"github.com/lxc/incus/v6/shared/api"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// ofTest is a name or an owner that a test gave, with the process of the test as its end.
var ofTest = regexp.MustCompile(`^(?:pxlab|pxtest|pixels-test-|pixels-full-|pixels-gateway-pxlab|pixels-gateway-pxtest|test-(?:[a-z]+-)?|bench-(?:raw-)?)(\d+)(?:-\d+)?(?:-other)?$`)

// abandoned says whether what has the name is of a test whose process is gone.
func abandoned(name string) bool {
	match := ofTest.FindStringSubmatch(name)
	if match == nil {
		return false
	}
	program, err := os.Readlink("/proc/" + match[1] + "/exe")
	return err != nil || !strings.Contains(filepath.Base(program), ".test")
}

// clearTables removes the firewall's tables of abandoned tests. Without nft there are none.
func clearTables(ctx context.Context) {
	tables, _ := nft(ctx, "", "list", "tables")
	for line := range strings.Lines(tables) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		name := strings.Replace(strings.TrimPrefix(strings.Replace(f[2], "pixels_test_", "pxlab", 1), "pixels_"), "_", "-", 1)
		if abandoned(name) {
			_, _ = nft(ctx, "", "delete", "table", f[1], f[2])
		}
	}
}

// clearLeftovers removes what a killed run left: its networks would keep the addresses that tests need.
func clearLeftovers(ctx context.Context, server *daemon) error {
	if err := settle(server); err != nil {
		return err
	}
	whole, etag, err := server.with(context.Background()).GetServer()
	if err != nil {
		return err
	}
	if abandoned(whole.Config[incushttps.For]) {
		if err := incushttps.Close(server.with(context.Background()), whole.Writable(), etag); err != nil {
			return err
		}
	}
	trusted, err := server.with(context.Background()).GetCertificates()
	if err != nil {
		return err
	}
	for _, c := range trusted {
		if abandoned(c.Name) {
			if err := server.with(context.Background()).DeleteCertificate(c.Fingerprint); err != nil {
				return err
			}
		}
	}
	clearTables(ctx)
	projects, err := server.with(context.Background()).GetProjectNames()
	if err != nil {
		return err
	}
	for _, name := range projects {
		if abandoned(name) {
			own := projectOf(server, name)
			if err := removeWhere(ctx, own, func(api.Instance) bool { return true }); err != nil {
				return err
			}
			if err := server.with(context.Background()).DeleteProject(name); err != nil {
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
	if err := clearNetworks(server); err != nil {
		return err
	}
	pools, err := server.with(context.Background()).GetStoragePoolNames()
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

// settle waits, not for long, until Incus has done what it was asked for: it goes on with what a killed run began.
func settle(server *daemon) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// Their addresses alone: asked for what operations tell, incusd 6.0.4 may end, for it writes that while they change it.
		answer, _, err := server.with(context.Background()).RawQuery(http.MethodGet, "/1.0/operations?all-projects=true", nil, "")
		if err != nil {
			return err
		}
		var all map[string][]string // by status
		if err := answer.MetadataAsStruct(&all); err != nil {
			return err
		}
		if len(all["running"])+len(all["pending"])+len(all["cancelling"]) == 0 || time.Now().After(end) {
			return nil
		}
	}
}

// clearNetworks deletes networks. Incus may just be making one, though nobody waits for it any more: its bridge would stay,
// with its addresses. Bridges that stayed so go too.
func clearNetworks(server *daemon) error {
	names, err := server.with(context.Background()).GetNetworkNames() // the machine's own interfaces are among them
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !abandoned(name) })
	if len(names) > 0 {
		time.Sleep(2 * time.Second)
	}
	for _, name := range names {
		err := amongOthers(context.Background(), func() error { return server.with(context.Background()).DeleteNetwork(name) })
		if err != nil && !missing(err) {
			return err
		}
		if link, err := netlink.LinkByName(name); err == nil {
			if err := netlink.LinkDel(link); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeWhere(ctx context.Context, server *daemon, which func(api.Instance) bool) error {
	instances, err := server.with(context.Background()).GetInstances(api.InstanceTypeAny)
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
func deletePool(server *daemon, name string) error {
	volumes, err := server.with(context.Background()).GetStoragePoolVolumes(name)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.Type == "image" {
			if err := server.with(context.Background()).DeleteStoragePoolVolume(name, v.Type, v.Name); err != nil {
				return err
			}
		}
	}
	return server.with(context.Background()).DeleteStoragePool(name)
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
	for _, name := range []string{"bench-raw-" + gone + "-3", "test-base-" + gone + "-22-other"} {
		if !abandoned(name) {
			t.Errorf("%s stays", name)
		}
	}
	for _, name := range []string{"", "pixels", "pixels-gateway-pixels", "px-test-" + gone, "mytest-" + gone, "web-" + gone, "incusbr0"} {
		if abandoned(name) {
			t.Errorf("%s is cleared", name)
		}
	}
}

func TestWhatAKilledRunLeftIsCleared(t *testing.T) {
	t.Parallel()
	server := realBackend(t).server
	const gone = "4999999"
	err := server.with(context.Background()).CreateProject(api.ProjectsPost{Name: "pixels-test-" + gone})
	if err != nil {
		t.Fatal(err)
	}
	incushttps.Trust(t, server.with(context.Background()), "pixels-test-"+gone)
	if err := clearLeftovers(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	all, err1 := server.with(context.Background()).GetProjectNames()
	trusted, err2 := server.with(context.Background()).GetCertificates()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for _, c := range trusted {
		all = append(all, c.Name)
	}
	if i := slices.IndexFunc(all, func(name string) bool { return strings.HasSuffix(name, gone) }); i >= 0 {
		t.Errorf("%s is left", all[i])
	}
}

// projectOf is an Incus with another project.
func projectOf(d *daemon, name string) *daemon {
	return &daemon{project: name, limit: d.limit, bind: func(ctx context.Context) client.InstanceServer { return d.with(ctx).UseProject(name) }}
}
