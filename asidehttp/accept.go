package asidehttp

import (
	"net/http"
	"strings"
)

// A weight is a quality value of RFC 9110, 12.4.2, in thousandths.
type weight int

const (
	unlisted weight = -1   // the header does not have the coding
	most     weight = 1000 // the weight of a coding without a q
)

// choose returns the name of the coding that a client likes best: that of a variant, or identity. It returns nothing if the client takes neither
// one of them nor the content without a coding. The rules are those of RFC 9110, 12.5.3.
//
// Without Accept-Encoding, every coding is acceptable. The client gets none then: many programs that send no such header cannot decode.
func (p *packed) choose(h http.Header) string {
	lines := h["Accept-Encoding"]
	if len(lines) == 0 {
		return identity
	}
	plain := listed(lines, identity)
	if plain == unlisted {
		plain = listed(lines, "*")
	}
	best, chosen := max(plain, 0), identity
	if plain == unlisted || plain == 0 {
		chosen = ""
	}
	for _, v := range p.all() {
		if v.name == identity {
			continue
		}
		q := listed(lines, v.name)
		if q == unlisted && v.name == gzipName {
			q = listed(lines, "x-gzip") // RFC 9110, 8.4.1.3
		}
		if q == unlisted {
			q = listed(lines, "*")
		}
		// Of equal weights, a coding is better than none, and the first one than the others.
		if q > best || q == best && q > 0 && chosen == identity {
			best, chosen = q, v.name
		}
	}
	if chosen == "" && plain == unlisted {
		return identity // acceptable unless it is excluded, but less than what is listed
	}
	return chosen
}

// listed returns the weight of a coding in the lines of an Accept-Encoding header. Of several, the first counts. A member that is malformed does
// not count.
func listed(lines []string, coding string) weight {
	for _, line := range lines {
		for more := line != ""; more; {
			var member string
			member, line, more = strings.Cut(line, ",")
			name, parameter, has := strings.Cut(member, ";")
			if !strings.EqualFold(trim(name), coding) {
				continue
			}
			if !has {
				return most
			}
			if q, ok := quality(trim(parameter)); ok {
				return q
			}
		}
	}
	return unlisted
}

// quality reads the parameter "q=0.5".
func quality(s string) (q weight, ok bool) {
	if len(s) < len("q=0") || s[0] != 'q' && s[0] != 'Q' || s[1] != '=' {
		return 0, false
	}
	whole, fraction, _ := strings.Cut(s[2:], ".")
	if whole != "0" && whole != "1" || len(fraction) > 3 {
		return 0, false
	}
	q = weight(whole[0]-'0') * most
	unit := most / 10
	for _, digit := range []byte(fraction) {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		q += weight(digit-'0') * unit
		unit /= 10
	}
	return q, q <= most
}

// trim takes the optional white space of HTTP away.
func trim(s string) string { return strings.Trim(s, " \t") }
