// Command routers mounts the handlers of a cache in the routers that backends use.
//
//	CACHE_API_KEY=$(openssl rand -hex 32) go run ./examples/routers -router chi    # or gin, echo, std
package main

import (
	"flag"
	"log"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// handlers are the handlers to mount.
type handlers struct {
	invalidate, metrics, health http.Handler
}

func handlersOf(c *aside.Cache, o asidehttp.Options) handlers {
	return handlers{asidehttp.AdminHandler(c, o), asidehttp.Metrics(c, o), asidehttp.Health(c, asidehttp.HealthOptions{})}
}

// Each handler checks the method itself, and answers 405 with a problem document: mount it for all methods.
var routers = map[string]func(handlers) http.Handler{
	"std": func(h handlers) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/api/cache/invalidate", h.invalidate)
		mux.Handle("/api/cache/metrics", h.metrics)
		mux.Handle("/api/cache/health", h.health)
		return mux
	},
	"chi": func(h handlers) http.Handler {
		r := chi.NewRouter()
		r.Handle("/api/cache/invalidate", h.invalidate)
		r.Handle("/api/cache/metrics", h.metrics)
		r.Handle("/api/cache/health", h.health)
		return r
	},
	"gin": func(h handlers) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		r := gin.New()
		r.Any("/api/cache/invalidate", gin.WrapH(h.invalidate))
		r.Any("/api/cache/metrics", gin.WrapH(h.metrics))
		r.Any("/api/cache/health", gin.WrapH(h.health))
		return r
	},
	"echo": func(h handlers) http.Handler {
		r := echo.New()
		r.Any("/api/cache/invalidate", echo.WrapHandler(h.invalidate))
		r.Any("/api/cache/metrics", echo.WrapHandler(h.metrics))
		r.Any("/api/cache/health", echo.WrapHandler(h.health))
		return r
	},
}

func main() {
	name := flag.String("router", "std", strings.Join(slices.Sorted(maps.Keys(routers)), ", "))
	addr := flag.String("addr", "127.0.0.1:8080", "address to serve on")
	flag.Parse()
	build, ok := routers[*name]
	if !ok {
		log.Fatalf("there is no router %q", *name)
	}
	opts, err := aside.OptionsFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	c, err := aside.New(opts)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	server := &http.Server{
		Addr: *addr, Handler: build(handlersOf(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(os.Getenv("CACHE_API_KEY"))}})),
		ReadTimeout: 30 * time.Second, // bounds the time to read a body; the handlers bound its size
	}
	log.Printf("serving on http://%s", *addr)
	log.Print(server.ListenAndServe())
}
