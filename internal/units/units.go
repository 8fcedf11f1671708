// Package units reads and writes sizes and durations as people do: 512MiB, 2GiB, 90m, 7d.
package units

import (
	"fmt"
	"strings"
	"time"

	gounits "github.com/docker/go-units"
	"github.com/xhit/go-str2duration/v2"
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

// ParseDuration reads a duration: 90s, 30m, 2h30m, 7d, 2w.
func ParseDuration(s string) (time.Duration, error) {
	d, err := str2duration.ParseDuration(strings.TrimSpace(s))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no duration: write it as 30m, 2h or 7d", s)
	}
	return d, nil
}

// Rounded is a length of time as people care for it: to the millisecond below a second, to a tenth of a second above.
func Rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// Duration writes a duration: 30m, 2h30m, 30d.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String() // as 2h30m0s
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
