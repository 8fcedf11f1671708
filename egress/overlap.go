package egress

// Within tells whether all that r is for, wider is for too.
func (r Rule) Within(wider Rule) bool {
	switch {
	case r.CIDR.IsValid() || wider.CIDR.IsValid():
		if !r.CIDR.IsValid() || !wider.CIDR.IsValid() || wider.CIDR.Bits() > r.CIDR.Bits() || !wider.CIDR.Contains(r.CIDR.Addr()) {
			return false
		}
	case !r.NameWithin(wider):
		return false
	}
	for _, p := range r.Ports {
		inside := false
		for _, w := range wider.Ports { // ranges are apart from each other: one has it all, or none
			inside = inside || w.First <= p.First && p.Last <= w.Last
		}
		if !inside {
			return false
		}
	}
	return true
}

// NameWithin tells whether all names that r is for wider is for, too, whatever the ports.
func (r Rule) NameWithin(wider Rule) bool {
	return wider.Domain != "" && r.Domain != "" && (r.Domain == wider.Domain && r.Below == wider.Below || wider.Below && wider.CoversName(r.Domain))
}

// Overlaps tells whether there is anything that both rules are for.
func (r Rule) Overlaps(o Rule) bool {
	switch {
	case r.CIDR.IsValid() || o.CIDR.IsValid():
		if !r.CIDR.IsValid() || !o.CIDR.IsValid() || !r.CIDR.Overlaps(o.CIDR) {
			return false
		}
	case r.Domain == o.Domain && r.Below == o.Below:
	case r.Below && r.CoversName(o.Domain), o.Below && o.CoversName(r.Domain):
	default:
		return false
	}
	for _, p := range r.Ports {
		for _, q := range o.Ports {
			if p.First <= q.Last && q.First <= p.Last {
				return true
			}
		}
	}
	return false
}
