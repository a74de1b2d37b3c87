// Package asidehttp serves the administration of an aside cache over HTTP, and notifies web front ends of its invalidations.
//
//	mux.Handle("/api/cache/invalidate", asidehttp.AdminHandler(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(os.Getenv("CACHE_API_KEY"))}}))
//
// [AdminHandler], [Metrics] and [Health] return http.Handlers, for the standard library's mux and for other routers: chi takes them
// directly, gin through gin.WrapH, echo through echo.WrapHandler. A [Revalidator] sends invalidations to a web front end.
//
// It is a package of its own, so that a backend without these handlers does not import net/http.
package asidehttp
