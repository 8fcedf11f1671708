package units

import "testing"

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
