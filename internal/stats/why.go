package stats

// A Cause is why a call was not answered from the cache.
type Cause uint8

// The causes of misses.
const (
	Absent      Cause = iota // nothing is cached, or the call ended before it was known
	Expired                  // the cached value is past its time
	Invalidated              // a tag of the cached value was invalidated
	Unusable                 // the cached value cannot be decoded, is incomplete, or is of another build or policy
	Unavailable              // Redis did not answer, or is not trusted
	Asked                    // the caller wanted a load

	Causes = iota // how many there are
)

// String returns the name of the cause.
func (c Cause) String() string { return causeNames[c] }

var causeNames = [Causes]string{"absent", "expired", "invalidated", "unusable", "unavailable", "asked"}

// An Ending is how a loader call ended.
type Ending uint8

// The endings of loader calls. A batch has the last one of those of its ids.
const (
	EndedNotFound Ending = iota
	EndedNotModified
	EndedOK
	EndedCanceled // its context had ended, since nobody waited for it any more
	EndedError
	EndedTimeout // of the policy
	EndedPanic   // or the loader ended its goroutine

	Endings = iota // how many there are
)

// String returns the name of the ending.
func (e Ending) String() string { return endingNames[e] }

// Failed reports whether the loader has failed, which one that nobody waits for has not.
func (e Ending) Failed() bool { return e >= EndedError }

var endingNames = [Endings]string{"not_found", "not_modified", "ok", "canceled", "error", "timeout", "panic"}

// An Invalidation is what is invalidated together.
type Invalidation uint8

// What is invalidated together.
const (
	OfKeys Invalidation = iota
	OfTags
	OfCategory
	OfPattern
	OfAll

	Invalidations = iota // how many there are
)

// String returns the name.
func (i Invalidation) String() string { return invalidationNames[i] }

var invalidationNames = [Invalidations]string{"keys", "tags", "category", "pattern", "all"}
