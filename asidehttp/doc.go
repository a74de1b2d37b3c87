// Package asidehttp serves an administration API for an aside cache over HTTP, serves cached bodies, and notifies web front ends of invalidations.
//
//	mux.Handle("/api/cache/invalidate", asidehttp.AdminHandler(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(os.Getenv("CACHE_API_KEY"))}}))
//
// [AdminHandler], [Metrics] and [Health] return http.Handlers, for the standard library's mux and for other routers: chi takes them
// directly, gin through gin.WrapH, echo through echo.WrapHandler. [Dashboard] returns a page for operators. A [Revalidator] sends invalidations to a web front end.
// [Pack] encodes a body for the cache, once for each load, and [Serve] answers requests with it.
//
// These handlers have a package of their own, so that a backend without them does not import net/http.
package asidehttp

// The files, in the order in which to read them. The admin handlers:
//
//	handler, shared      AdminHandler; what all handlers of a cache share
//	gate                 admits requests: by key, rate and scope
//	options, auth, limit keys, scopes, rates
//	request, selection   the body of a POST; its names resolved to keys, categories and tags
//	invalidate, room     carries an order out; refuses it if too many are pending
//	dryrun               counts what an order would invalidate
//	warm, warming        starts and shows warmers; their runs
//	metrics, listing     Metrics; the keys of a pattern
//	turns                which requests may scan keys now
//	health               Health
//	answer, response     the body of a response; its headers
//	problem              a response that refuses a request
//	audit, noted, quoted the log lines
//
// The dashboard:
//
//	dashboard            Dashboard; its options; which data it has
//	session              admits requests by the program's own session
//	dashboard_figures    the counters of a period, nodes, events, hot keys
//	dashboard_keys       a listing
//	dashboard_entry      one value
//	internal/page        the files of the page
//	internal/history     the counters of the last hour
//
// Cached bodies:
//
//	serve, decode        Serve; the content for clients that take no coding
//	body, pack           the form of a Body; Pack and the codings
//	accept, etag         which coding a client gets; which content it has
//	cachestatus          the header Cache-Status
//
// The Revalidator:
//
//	revalidator          the loop that sends targets
//	revalidator_options  its options, and their checks
//	target               what a front end revalidates
//	backlog, queue       the targets that wait; their order
//	pace                 the pauses after failures
//	poster, failure      one request; why it was not acknowledged
//	redactor             errors without secrets
//	news                 the log lines
