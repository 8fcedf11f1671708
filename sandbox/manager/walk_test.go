package manager_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pixels/egress"
	tree "pixels/internal/owner"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

// Several servers at once, with one ledger and one backend: whatever is minted, revoked, used and destroyed, the holders of a token and
// those below it never have more than it allows.
func TestNoTokenTreeEverHasMoreThanItsTop(t *testing.T) {
	const servers, workers, lasts = 3, 4, 2 * time.Second
	backend := sandboxtest.NewMemory()
	path := filepath.Join(t.TempDir(), "pixels.db")
	var managers []*manager.Manager
	var human *manager.Human
	for range servers {
		store, err := ledger.Open(path, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		m, door := manager.NewWithDoor(backend, manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Store: store})
		managers, human = append(managers, m), door.Human("test")
	}
	var mu sync.Mutex
	bounds, secrets := map[string]int64{}, map[string]string{} // of all tokens that ever were, by name
	mint := func(m *manager.Manager, by manager.Caller, name string, most int64) {
		l := policy.Limits{Sandboxes: &most}
		mu.Lock()
		defer mu.Unlock()
		var secret string
		var err error
		if by.Owner == "" {
			secret, err = human.CreateToken(context.Background(), ledger.Token{Name: name, Limits: l})
		} else {
			var made ledger.Token
			made, secret, err = m.MintToken(context.Background(), by, name, l, time.Time{})
			name = made.Name
		}
		if err == nil {
			bounds[name], secrets[name] = most, secret
		}
	}
	mint(nil, manager.Caller{}, "orch", 5)
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	made := make([]int, servers)
	var all sync.WaitGroup
	for s, m := range managers {
		for w := range workers {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(s), uint64(w)))
				for n := 0; ctx.Err() == nil; n++ {
					mu.Lock()
					var name, secret string
					for name, secret = range secrets {
						break
					}
					mu.Unlock()
					caps, _, err := m.Authenticate(secret)
					if errors.Is(err, ledger.ErrToken) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					c := manager.Agent(caps.Holder)
					c.Caps = caps
					switch random.IntN(10) {
					case 0:
						mint(m, c, fmt.Sprintf("w%d-%d-%d", s, w, n), int64(random.IntN(4)))
					case 1:
						if name != "orch" {
							if _, err := human.RevokeToken(context.Background(), name, random.IntN(2) == 0); err != nil {
								t.Error(err)
							}
						}
					case 2, 3, 4:
						if page, err := m.List(context.Background(), c, manager.ListRequest{}); err == nil && len(page.Sandboxes) > 0 {
							_, _ = m.Destroy(context.Background(), c, []string{page.Sandboxes[random.IntN(len(page.Sandboxes))].Name})
						}
					default:
						_, err := m.Create(context.Background(), c, manager.CreateRequest{Name: fmt.Sprintf("s%d-%d-%d", s, w, n)})
						switch {
						case err == nil:
							mu.Lock()
							made[s]++
							mu.Unlock()
						case !errors.Is(err, sandbox.ErrDenied):
							t.Errorf("%v", err)
						case !strings.Contains(err.Error(), "token orch"):
							t.Errorf("refused by something else: %v", err)
						}
					}
				}
			})
		}
	}
	for ctx.Err() == nil {
		mu.Lock()
		known := map[string]int64{}
		for name, most := range bounds {
			known[name] = most
		}
		boxes, err := backend.Tree(context.Background(), "orch", true)
		mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for name, most := range known {
			count := int64(0)
			for _, b := range boxes {
				if tree.Under(b.Owner, name) {
					count++
				}
			}
			if count > most {
				t.Errorf("%s and those below it have %d sandboxes, of %d", name, count, most)
				cancel()
			}
		}
	}
	all.Wait()
	total := 0
	for s, n := range made {
		if total += n; n == 0 {
			t.Errorf("server %d made nothing", s)
		}
	}
	if total < 10 {
		t.Errorf("only %d were made: there was nothing to race for", total)
	}
	t.Log("made by each server:", made)
}
