// Package units reads and writes sizes and durations as people do: 2GiB, 90m, 7d.
package units

import (
	"fmt"
	"math"
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

// ParseDuration reads a length of time above zero: 90s, 45m, 24h, 7d, 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	d, err := str2duration.ParseDuration(strings.TrimSpace(s))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no length of time: write it as 90m, 24h or 7d", s)
	}
	return d, nil
}

// Duration writes a length of time by its two largest units: 7d, 1d12h, 59m, 3s.
func Duration(d time.Duration) string {
	if d < 0 {
		return "-" + Duration(-d)
	}
	if d < time.Second {
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	seconds := int64(math.Round(d.Seconds()))
	steps := []struct {
		letter  string
		seconds int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}}
	for i, step := range steps {
		if seconds < step.seconds {
			continue
		}
		out := fmt.Sprintf("%d%s", seconds/step.seconds, step.letter)
		if i+1 < len(steps) {
			if rest := seconds % step.seconds / steps[i+1].seconds; rest > 0 {
				out += fmt.Sprintf("%d%s", rest, steps[i+1].letter)
			}
		}
		return out
	}
	return "0s"
}
