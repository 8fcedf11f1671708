package incus

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/internal/fault"
	"pixels/internal/guestbin"
	"pixels/sandbox"
)

// staleAfter is how old a half-made sandbox must be to count as left behind by a killed process. A creation ends long
// before: its slowest step, unpacking an image for the first time, takes seconds.
const staleAfter = 3 * time.Minute

// Create implements sandbox.Backend.
func (b *Backend) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(createBegun)
	if err := b.refuseTaken(ctx, spec.Owner, spec.Name); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(createFree)
	post, err := b.instance(ctx, spec)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(createRead)
	made, err := b.create(ctx, post, spec)
	if err != nil {
		// The caller may have given up; what was begun must go all the same.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if e := b.remove(clean, post.Name); e != nil && !errors.Is(e, sandbox.ErrNotFound) {
			err = errors.Join(err, fmt.Errorf("and it could not be removed: %w", e))
		}
		return sandbox.Sandbox{}, b.failed(err, "create sandbox %s", spec.Name)
	}
	return made, nil
}

// create makes the instance, starts it and makes sure of its name. What it leaves when it fails, its caller removes.
func (b *Backend) create(ctx context.Context, post api.InstancesPost, spec sandbox.Spec) (sandbox.Sandbox, error) {
	device, err := b.takeWire(ctx, post.Name, post.Config)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if device != nil {
		post.Devices[card] = device
	}
	b.at(createWired)
	op, err := b.server.commit(ctx).CreateInstance(post)
	b.at(createCopying)
	if _, err = finish(ctx, b.server, op, err); err != nil {
		if spec.SourceID == "" && notFoundInside(err) {
			err = fault.With(fmt.Errorf("the configured pool (%s) or network (%s) may be missing: %w", b.config.Pool, b.config.Network, err), fault.Hint{Action: fault.SetUp})
		}
		return sandbox.Sandbox{}, err
	}
	b.at(createCopied)
	if _, err := b.rival(ctx, spec, post.Name, false); err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := b.proveSource(ctx, spec); err != nil { // before it can reach anything
		return sandbox.Sandbox{}, err
	}
	b.at(createProven)
	if err := b.boot(ctx, post.Name, post.Config); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(createStarted)
	if err := b.win(ctx, spec, post.Name); err != nil {
		return sandbox.Sandbox{}, err
	}
	b.at(createWon)
	made, err := b.made(ctx, spec, post.Name, device != nil)
	if err == nil {
		err = b.proveSource(ctx, spec) // what was taken from the source while it started is taken from it
	}
	b.at(createReady)
	return made, err
}

// made returns an instance that has started as a sandbox, once it is as far as the spec asks.
func (b *Backend) made(ctx context.Context, spec sandbox.Spec, id string, network bool) (sandbox.Sandbox, error) {
	if spec.Early {
		inst, err := b.cache.instance(ctx, id)
		if err == nil && inst != nil && commandsWait(inst) {
			return describe(&inst.Instance), nil
		}
	}
	return b.ready(ctx, id, network)
}

// commandsWait tells whether a command that is given to an instance while it boots waits until it is ready: the program
// that runs it does, where it is the first process too.
func commandsWait(inst *known) bool {
	at, err := guestbin.Path()
	return err == nil && inst.Config["image."+programProperty] == at && inst.Config["image."+provisionKindKey] == KindBase
}

// ready returns an instance that was just started as a sandbox, once it is ready.
func (b *Backend) ready(ctx context.Context, id string, network bool) (sandbox.Sandbox, error) {
	if err := b.awaitReady(ctx, id, network); err != nil {
		return sandbox.Sandbox{}, err
	}
	inst, err := b.cache.instance(ctx, id)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if inst == nil {
		return sandbox.Sandbox{}, fault.About(sandbox.ErrNotFound, fmt.Sprintf("instance %s", id), "")
	}
	return describe(&inst.Instance), nil
}

// newID makes up the name of an instance.
func newID() string {
	random := make([]byte, 6)
	_, _ = rand.Read(random) // it never fails
	return "pixels-" + hex.EncodeToString(random)
}

// refuseTaken returns ErrExists when the name is in use, and removes what a killed process left half-made under it.
func (b *Backend) refuseTaken(ctx context.Context, owner, name string) error {
	// What no one has read yet is found once the claim is made; most names are free.
	if all := b.cache.lately(); all != nil && len(claimsIn(all, owner, name)) == 0 {
		return nil
	}
	all, err := b.cache.instances(ctx)
	if err != nil {
		return b.failed(err, "find sandbox %s", name)
	}
	for _, c := range claimsIn(all, owner, name) {
		if !b.left(c) {
			return taken(name)
		}
		if err := b.remove(ctx, c.Name); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			return b.failed(err, "remove what was left half-made of sandbox %s", name)
		}
	}
	return nil
}

func taken(name string) error {
	return fault.New(fault.Exists, fault.Sandbox(name), "", fault.Hint{Action: fault.OtherName, Name: name})
}

// rival decides between claims. Of several creations of one name at once, one wins. Each writes its claim (the instance with its keys), then looks: it
// backs off before one that is older or already whole. Then it becomes whole, by its start, and looks again, because an older
// claim can appear later than a newer one looked. Before an older one that became whole it backs off, for that one may
// have looked too early to see it; one that is not whole yet either will be, or backs off: the newer waits to see.
//
// It is one such look, and returns ErrExists when another claim goes before the one on instance id. With ownWhole set,
// id itself is whole; an older claim that isn't yet is then returned as undecided.
func (b *Backend) rival(ctx context.Context, spec sandbox.Spec, id string, ownWhole bool) (undecided bool, err error) {
	claims, err := b.claims(ctx, spec.Owner, spec.Name)
	if err != nil {
		return false, err
	}
	own := -1
	for i, c := range claims {
		if c.Name == id {
			own = i
		}
	}
	if own < 0 {
		return false, fault.About(sandbox.ErrNotFound, fault.Sandbox(spec.Name), "was destroyed while it was being made (not found)")
	}
	for i, c := range claims {
		before := i != own && older(c, claims[own]) < 0
		switch {
		case i == own, !whole(c) && !before, ownWhole && !before:
		case whole(c) || !ownWhole:
			return false, taken(spec.Name)
		case !b.left(c):
			undecided = true
		}
	}
	return undecided, nil
}

// win returns once no older claim can become whole any more, or ErrExists when one did.
func (b *Backend) win(ctx context.Context, spec sandbox.Spec, id string) error {
	for {
		undecided, err := b.rival(ctx, spec, id, true)
		if err != nil || !undecided {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// instance is what Incus is to make of a spec.
func (b *Backend) instance(ctx context.Context, spec sandbox.Spec) (api.InstancesPost, error) {
	config := map[string]string{
		nameKey: spec.Name, ownerKey: spec.Owner, fromKey: spec.From, egressKey: string(spec.Egress), networkKey: b.config.Network,
		expiresKey: expiry(spec.ExpiresAt),
		// No way to reach Incus from inside, and a map of user ids that no other sandbox has.
		"security.guestapi": "false", "security.idmap.isolated": "true",
	}
	if spec.Lineage != "" {
		config[lineageKey] = spec.Lineage
	}
	config["security.nesting"] = strconv.FormatBool(spec.Nesting) // said even when it is not, for a copy inherits it
	if err := setRules(config, spec.Rules); err != nil {
		return api.InstancesPost{}, fmt.Errorf("keep what sandbox %s may reach: %w", spec.Name, err)
	}
	setEnv(config, spec.Env)
	devices := map[string]map[string]string{}
	source := api.InstanceSource{Type: "image"}
	if spec.SourceID != "" {
		inherited, from, err := b.copied(ctx, spec.SourceID, spec.SourceLabel)
		if err != nil {
			return api.InstancesPost{}, b.failed(err, "copy %s", spec.From)
		}
		// A copy inherits keys and devices; an empty key and a device of the type none drop one.
		for key := range inherited {
			if _, set := config[key]; !set && strings.HasPrefix(key, "user.pixels.") {
				config[key] = ""
			}
		}
		if err := inheritEnv(config, inherited, spec.Env); err != nil {
			return api.InstancesPost{}, err
		}
		devices[card] = map[string]string{"type": "none"}
		source = from
	} else if alias, _, err := b.server.with(ctx).GetImageAlias(spec.Image); err == nil {
		source.Fingerprint = alias.Target
	} else if _, _, fingerprintErr := b.server.with(ctx).GetImage(spec.Image); missing(err) && fingerprintErr == nil {
		source.Fingerprint = spec.Image
	} else if missing(err) {
		return api.InstancesPost{}, fault.New(fault.NotFound, fmt.Sprintf("image %q", spec.Image), "", fault.Hint{Action: fault.SetUpImage, Value: b.config.Image})
	} else {
		return api.InstancesPost{}, b.failed(err, "find image %s", spec.Image)
	}
	for key, value := range spec.Labels {
		config[labelKeys+key] = value
	}
	limits := spec.Limits
	if limits.CPU > 0 {
		config["limits.cpu"] = strconv.Itoa(limits.CPU)
	}
	if limits.Memory > 0 {
		config["limits.memory"] = strconv.FormatInt(limits.Memory, 10)
	}
	if limits.Processes > 0 {
		config["limits.processes"] = strconv.Itoa(limits.Processes)
	}
	if spec.SourceID == "" || limits.Disk > 0 {
		devices["root"] = map[string]string{"type": "disk", "path": "/", "pool": b.config.Pool}
		if limits.Disk > 0 {
			devices["root"]["size"] = strconv.FormatInt(limits.Disk, 10)
		}
	}
	return api.InstancesPost{
		Name: newID(), Type: api.InstanceTypeContainer, Source: source,
		// No profiles: nil would mean the default one, which is someone else's.
		InstancePut: api.InstancePut{Profiles: []string{}, Config: config, Devices: devices},
	}, nil
}

// copied returns the keys of what is to be copied, and how to name it to Incus.
func (b *Backend) copied(ctx context.Context, id, label string) (map[string]string, api.InstanceSource, error) {
	if label == "" {
		inst, _, err := b.server.with(ctx).GetInstance(id)
		if err != nil {
			return nil, api.InstanceSource{}, err
		}
		return inst.Config, api.InstanceSource{Type: "copy", Source: id, InstanceOnly: true}, nil
	}
	holder, snapshot, err := b.checkpoint(ctx, id, label)
	if err != nil {
		return nil, api.InstanceSource{}, err
	}
	return snapshot.Config, api.InstanceSource{Type: "copy", Source: holder + "/" + label}, nil
}

// expiry is a lease's end as a key has it; empty where there is none.
func expiry(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}
