// Checker shows whether the cache keeps its promises where they are hardest to keep: in several operating-system processes on
// one Redis, while something is always going wrong. Nothing in it knows how the cache works. From the root of the repository:
//
//	go run ./internal/checker [-topology single|cluster|sentinel] [-schedules n] [-ops n] [-seed s] [-out dir] [-faults names] [-nemesis names]
//	go run ./internal/checker -check dir/history-single-7.jsonl
//
// It prints a line for each schedule and then a summary, and it ends with status 1 when a promise was broken: it explains the
// reads that show it, and keeps the raw history, which -check judges again. -schedules and -ops are both minima. The seeds of
// the schedules count up from -seed. A seed repeats what is done, not when exactly it is done: that is up to the machine. -faults
// leaves out all faults but those named; -nemesis has every schedule begin with those named, at their longest, and leaves out all
// others but those of -faults.
//
// # A schedule
//
// A source holds the true version of each of 48 keys. It lives in the judging process and is asked through a Unix socket,
// which no fault concerns. Four workers, processes of their own, each have a cache on the same Redis. In each, some goroutines
// write: they raise the versions of one to three keys in the source, and then invalidate them, by themselves, by tag, by category,
// by pattern or all. Others read, through every door that there is: GetOrLoad, GetOrLoadMany, Loader.Get, Loader.GetMany,
// Lookup, Get, with Strong and with Refresh. The keys are few, so that all this meets. Some carry tags, some have tags that their
// loader names, some are large and stored in chunks, some are private copies. Loaders take up to 80 ms, before they read the
// source and after it. The codec takes up to 160 ms now and then, between a reply and what becomes of it. One call in eight waits for
// 5 to 20 ms only, others for a second or for as long as it takes, for the same keys. Some keys are also read in batches of 1,100 to
// 6,000 ids, for which Redis is asked in several portions, and meanwhile alone and in a hurry.
//
// In half of the schedules everything meets as often as it can: keys are changed by all processes, by every door. In the other
// half ("apart") each key is changed by one process only and by itself, seldom, but then several times in a row; half of the keys of
// four groups are read only through doors that join a load that there is, and four keys, by the first worker, only in and beside
// large batches: what goes wrong once is not mended by the next write or read.
//
// In half of the schedules, those of which the seed leaves 2 or 3 when it is divided by 4, the values of one group are kept in memory alone, those of another
// one in Redis alone, and those of a third policy are in memory for 200 ms at most before Redis is asked again. Half of the invalidations of one key of
// the first group are by a pattern that matches this key alone.
//
// Every now and then the source stands still, until every process was seen to read the last version of every key whose
// invalidation is confirmed, through a door that memory may answer; or else for longer than a version may stay.
//
// After a quiet time, 3 to 10 faults are caused, chosen by the seed: to Redis (connections killed, all or one; FLUSHALL; SIGSTOP;
// SIGKILL and restart, in a third of the schedules with everything it had confirmed, otherwise empty; eviction and out of memory;
// a full tracking table; read-only; full, with noeviction; permissions of the workers' user taken away and given back; SWAPDB with
// an empty database, and back), at the same time to a worker (SIGKILL, and another one in its place; SIGSTOP, for long or
// for moments) and to the way between Redis and one worker, which is always some milliseconds off (partition, replies lost, slow, cut,
// replies held back by chance, two to four connections of which one overtakes the other, packets cut between two commands), and at the same time by others: clients of the
// same Redis (scripts that keep it busy; leases deleted and expired; garbage, hashes, huge strings, copies of other keys' values, and
// leases of nobody, under the cache's keys; generations that are none), and the source, which keeps loads waiting for 6.5 s: by
// itself, while their leases are deleted, or over an outage. A cluster knows neither SWAPDB nor a primary that is read-only, and its nodes
// keep nothing on disk. Its primaries are also promoted, taken over by force and relieved of slots; one of them is killed or stopped, for less or
// more than what a failover takes, or all of them are, while loads go on; one of them or all are full or evict; one at a time is busy; permissions are
// taken away at all nodes. Whatever is about a key is done at the node that has it then: a redirection is followed, and what no node takes counts
// for nothing. Only one thing at a time stops nodes or changes who has which slot.
// Of two servers a Sentinel names one as the primary, and the other one again and again: while the first one serves, hangs or is dead. It
// goes on serving for half a second at most, and is made a replica then. The Sentinel is stopped and killed too. In a quarter
// of the schedules values are served for a short DegradedTTL without Redis' word, in an eighth for one of 5 to 7 s, in the others never. In the end everything is
// healed, and each worker reads each key through each door until it has the last version: where that is too late, the rule below
// says so.
//
// Half of the schedules, those with an odd seed, have windows: TTLs of 50 to 500 ms, RefreshAhead, Stale and StaleIfError of up to 2 s together and a
// SoftTimeout, for all policies. Values are loaded anew in the background then, before their TTL ends and after it, and one load in 25 fails, so
// that older values stand in. In the other half TTLs are long: what an invalidation has missed is not mended by the next load.
//
// In a schedule with windows the source has ETags: loaders find the cached version by Previous, and say where it is not modified, so that it is
// kept with new times. A source knows nothing of invalidations. So one load in three does not even compare, and takes each previous value for not
// modified: the cache must know by itself what was invalidated, and such a value stays until it is. Some of these loaders name the tags of the
// value again, and some do not. What Previous gives is noted as a read that was called when the call of the load was. Where keys
// are changed by one process each, that process also calls Set now and then, after the invalidation, while nobody else changes the key.
//
// Every operation is noted with when it was called and when it returned, on CLOCK_MONOTONIC, which all processes of a host share.
// What a killed process had not sent by then is not judged. A run of several schedules also fails where an interleaving that
// it is about has never occurred: a refused fill, an invalidation that was not confirmed at once, a gap, each door, a call that ended at
// its deadline, a large batch, a load in the background; and with several schedules that have windows, one that was left to another process, one
// that failed, a value that stood in for a failed load, and loads in the background that an invalidation overtook, before they read the source and after
// it; likewise a value that is not modified, and those of overtaken loads. A loader tells whether it runs in the background by its context: the call that it is of has got its value already. Faults are counted with what shows that they had an effect (errors that the server has counted, packets
// that were cut, leases that were there, answers that were kept back): one that had none is named, and a run in which one was tried several times and never had any fails.
//
// # The rule
//
// A write spans from the start of the update to the return of the invalidation. A read may return any version that was
// current since the last invalidation that completed before the read began: since that was called, to be exact, for
// what was loaded before is not to be seen again. So for an invalidation I of a key, let its floor be the version that the
// source had when I was called. A read that returns version v is wrong if
//
//   - v did not exist yet when the read returned, or
//   - an invalidation with a floor above v was complete before the read was called.
//
// When an invalidation is complete depends on who reads:
//
//   - "own process": for the process that has called it, when it has returned, confirmed or not.
//   - "Strong": for a Strong read in any process, when it was confirmed: when it has returned with Receipt.Confirmed, or else
//     when Receipt.Wait has.
//   - "other processes": for every other read, delta after it was confirmed. The smallest delta with which all is right is
//     measured and printed: for reads that are called at quiet times, for those near a gentle fault, which leaves connections alone
//     and Redis answering, and for those near another one. Near is from its beginning to 3 s after its end, and so is what a process
//     itself calls an outage (Cache.Health). A delta above 3 s is a violation, and near a fault that is not gentle, one above 3 s and
//     DegradedTTL: those are the bounds that the cache declares. Where Redis answers, DegradedTTL is no excuse.
//
// Nothing in this is about windows. That a value may be served past its TTL, or in place of one that cannot be loaded, excuses nothing: an
// invalidation ends each window of what was loaded before. Nor is anything about values that are not modified: what was invalidated is not a
// previous value, and what is invalidated during a load is not kept.
//
// What is not promised is left out, and counted:
//
//   - An invalidation that was not confirmed when its process was killed is never complete for other processes, and neither
//     is a version that its process was killed before invalidating. At the end, those keys are not waited for ("exempt").
//   - Replication is asynchronous: a node that takes over may not have been told of what the other one has confirmed just before.
//     What that had confirmed, from a second before a failover on, is complete for others three seconds after it, when the process
//     that has called it has found the other node and sent it again; and never if the process was killed before. Only
//     invalidations that may have been confirmed by that node are left out so ("near a failover"). Where a Sentinel names another primary, it lasts
//     until the old one is a replica.
//   - What is confirmed while the databases are swapped is undone when they are swapped back, as by a backup that is restored. It is
//     complete, for its own process and Strong too, three seconds after that, when the process that has called it has noticed and
//     sent it again; and never if the process was killed before ("undone with their server"). They are swapped back no sooner than the
//     cache declares that it notices.
//   - A process that is stopped cannot hear. Its delta counts in time in which it ran. For its own invalidations, and for
//     Strong, this is no excuse.
//
// # The two checks
//
// rule.go judges every read by the rule as it stands: with the floors of a key sorted by time, it is one binary search a
// read. So that nobody has to believe that this search is right, model.go gives the same histories to porcupine
// (https://github.com/anishathalye/porcupine), which knows nothing of the rule. It is given a register, and looks for an order of
// operations that the register allows and that contradicts no times.
//
// A plain register will not do: while a write is under way, a read may give the new version and the next one the old version
// again. So the register is a pair, the lowest version that may be read and the highest, and a write is two operations on it:
// the update, over the interval in which the source made it, raises the highest; the completion raises the lowest to the floor.
// A read gives anything in between, and changes nothing. A completion takes effect at the last moment that it may, as
// a point: an earlier one would only forbid more, so that an order exists with the point if there is one at all, and porcupine
// need not try the others. Because reads change nothing, any of them can be judged without the others: a history is cut into one
// for each key, process and strength, and those into pieces of 128 reads with all writes that concern them; what came
// before is the register's first state. The measured delta is used for the completions of other processes. With one that is
// a nanosecond smaller, porcupine must refuse the read that it was measured from.
package main
