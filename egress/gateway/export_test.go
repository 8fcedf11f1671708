package gateway

import "time"

// ShortPatience has a gateway of the tests believe for a shorter time that the other end of a connection is there.
func ShortPatience() {
	short := patience{time.Second, time.Second, 2, 2 * time.Second}
	clientPatience, upstreamPatience, halfPatience = short, short, short
}
