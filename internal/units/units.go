// Package units reads and writes sizes as people do: 512MiB, 2GiB.
package units

import (
	"fmt"
	"strings"

	gounits "github.com/docker/go-units"
)

// ParseSize reads a number of bytes: 512MiB, 2GiB, 2G (which means 2GiB) or a bare number.
func ParseSize(s string) (int64, error) {
	n, err := gounits.RAMInBytes(strings.TrimSpace(s))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is no size: write it as 512MiB or 2GiB", s)
	}
	return n, nil
}

// Size writes a number of bytes: 2GiB, 1.5MiB, 12B.
func Size(n int64) string { return gounits.BytesSize(float64(n)) }
