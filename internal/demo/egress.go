package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// fetch is the sandbox that has to ask for what it reaches.
const fetch = "fetch"

// source finds the first package source of a sandbox, and a small file of it.
const source = `sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) \([^ ]*\) .*/\2 \3/p; s/^URIs: *\([^ ]*\).*/\1/p; s/^Suites: *\([^ ]*\).*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | tr '\n' ' '`

var sourceRule = regexp.MustCompile(`^(https?://\S+) (\S+)`)

// egress shows a domain that is denied, held for a human and granted, used, taken back, and a connection that this cuts.
func (d *Demo) egress(ctx context.Context) error {
	var file *url.URL
	err := d.step("clone it, with nothing in its reach", func() (string, error) {
		var got struct {
			Clones []struct {
				Error string
				Exec  exec
			}
		}
		err := d.client.Call(ctx, "clone_sandbox", map[string]any{"source": "base:ready", "names": []string{fetch}, "egress": "allowlist", "command": source}, &got)
		clone, err := one(got.Clones, err)
		if err == nil && clone.Error != "" {
			err = errors.New(clone.Error)
		}
		if err != nil {
			return "", err
		}
		found := sourceRule.FindStringSubmatch(clone.Exec.Stdout)
		if found == nil {
			return "", fmt.Errorf("it has no package source: %q", clone.Exec.Stdout)
		}
		file, err = url.Parse(strings.TrimSuffix(found[1], "/") + "/dists/" + found[2] + "/InRelease")
		return fetch + ": egress allowlist, which is empty", err
	})
	if err != nil {
		return err
	}
	get := func() (exec, error) {
		var ran exec
		err := d.client.Call(ctx, "exec", map[string]any{"name": fetch, "command": "rm -f got; /usr/lib/apt/apt-helper download-file " + file.String() + " got 2>&1"}, &ran)
		return ran, err
	}
	host := file.Hostname()
	err = d.step("reach for a package source", func() (string, error) {
		ran, err := get()
		if err == nil && (ran.ExitCode == 0 || !strings.Contains(ran.Denied, host)) {
			err = fmt.Errorf("exit code %d, %s, %q", ran.ExitCode, ran.Stdout, ran.Denied)
		}
		return ran.Denied, err
	})
	if err != nil {
		return err
	}
	reached := false
	err = d.step("reach again, with a human there", func() (said string, err error) {
		said, reached, err = d.held(ctx, file, get)
		return said, err
	})
	if err != nil || !reached {
		return err
	}
	err = d.step("ask for a domain that nobody grants", func() (string, error) { return d.refused(ctx) })
	if err != nil {
		return err
	}
	port := map[string]string{"http": "80", "https": "443"}[file.Scheme]
	if file.Port() != "" {
		port = file.Port()
	}
	return d.step("take it back, with a connection open", func() (string, error) {
		var held struct{ Operation string }
		err := d.client.Call(ctx, "exec", map[string]any{"name": fetch, "background": true, "command": "exec 3<>/dev/tcp/" + host + "/" + port + "; echo open; cat <&3"}, &held)
		for err == nil {
			var ran exec
			if err = d.client.Call(ctx, "exec", map[string]any{"name": fetch, "command": "grep -c ' 01 ' /proc/net/tcp"}, &ran); strings.TrimSpace(ran.Stdout) != "0" {
				break
			}
		}
		if err != nil {
			return "", err
		}
		var change struct{ Cut int }
		if err := d.human(ctx, &change, "network", "deny", fetch, host, "--json"); err != nil {
			return "", err
		}
		var ended struct{ Operations []struct{ State string } }
		err = d.client.Call(ctx, "wait", map[string]any{"ids": []string{held.Operation}, "timeout": 10}, &ended)
		operation, err := one(ended.Operations, err)
		if err != nil {
			return "", err
		}
		if change.Cut == 0 || operation.State != "ended" {
			return "", fmt.Errorf("%d connections were cut, and the command that held one is %s", change.Cut, operation.State)
		}
		ran, err := get()
		if err == nil && ran.ExitCode == 0 {
			err = fmt.Errorf("what was denied was fetched")
		}
		return fmt.Sprintf("%d cut, and denied again", change.Cut), err
	})
}

// one is the one element of a list that a call which may have failed returned.
func one[T any](list []T, err error) (first T, _ error) {
	switch {
	case err != nil:
		return first, err
	case len(list) != 1:
		return first, fmt.Errorf("there is not one answer but %d: %+v", len(list), list)
	}
	return list[0], nil
}
