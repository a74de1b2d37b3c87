package asideprom_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideprom"
)

func Example() {
	models := aside.Policy{Name: "models", Category: "models", TTL: time.Hour}
	c, err := aside.New(aside.Options{Policies: []aside.Policy{models}}) // listed, so that its series begin at 0
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	collector, err := asideprom.New(c, asideprom.Options{})
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	for range 3 {
		_, err := aside.GetOrLoad(context.Background(), c, models.Key("all"), func(context.Context) (string, error) { return "a catalogue", nil })
		if err != nil {
			log.Fatal(err)
		}
	}
	response := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(response, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(response.Body.String()) {
		if strings.HasPrefix(line, "aside_hits_total") || strings.HasPrefix(line, "aside_state{") {
			fmt.Print(line)
		}
	}
	// Output:
	// aside_hits_total{cache="default",label="models",tier="memory"} 2
	// aside_hits_total{cache="default",label="models",tier="redis"} 0
	// aside_state{cache="default",state="connected"} 0
	// aside_state{cache="default",state="degraded"} 0
	// aside_state{cache="default",state="memory"} 1
}

// The rules for Prometheus, for a file of rule_files.
func ExampleRules() {
	for line := range strings.Lines(string(asideprom.Rules())) {
		if _, alert, found := strings.Cut(line, "- alert: "); found {
			fmt.Print(alert)
		}
	}
	// Output:
	// AsideDegraded
	// AsideDegradedFleet
	// AsideHitRatioFell
	// AsideLoadsFail
	// AsideLoadsQueue
	// AsideInvalidationsUnconfirmed
	// AsideInconsistent
	// AsideUnusableValues
	// AsideTrackingLost
}
