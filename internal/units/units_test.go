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

func TestDurationsReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "2w": 336 * time.Hour, "45s": 45 * time.Second} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "-1h", "0s", "soon", "1h-30m"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v and no error", text, d)
		}
	}
}

func TestDurationsAreWrittenWithTwoUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 250 * time.Millisecond: "250ms", 59 * time.Second: "59s", time.Hour: "1h",
		90 * time.Minute: "1h30m", 7 * 24 * time.Hour: "7d", 36*time.Hour + 5*time.Minute: "1d12h", -time.Minute: "-1m",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
}
