package units

import (
	"testing"
	"time"
)

func TestSizesReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]int64{"2GiB": 2 << 30, "512MiB": 512 << 20, "2G": 2 << 30, "1.5GiB": 3 << 29, " 4096 ": 4096} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "0", "many", "2XiB", "-2GiB"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d and no error", text, n)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, " 2h30m ": 150 * time.Minute, "7d": 168 * time.Hour, "1w1d": 192 * time.Hour} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "0s", "-1h", "2", "2 hours", "soon", "99999999999w"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for _, d := range []time.Duration{time.Second, 90 * time.Minute, 24 * time.Hour, 45 * 24 * time.Hour} {
		if again, err := ParseDuration(Duration(d)); err != nil || again != d {
			t.Errorf("%v is written %q, which is %v, %v", d, Duration(d), again, err)
		}
	}
}
