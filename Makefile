# The one place for every command of the project. A recipe that needs more than a
# line or two is a script in scripts/.

TESTFLAGS =
FUZZTIME  = 5s
BENCHTIME = 1s
RACES     = TestProgramsThat|TestAThousandCaches|TestNoStale|TestFault08|TestNoCallerEver|TestHowLongAnother|TestACategoryOfAnySize|ADictionaryOfIDs|TestNoGenerationInUse|TestRacesOf|InRealTimeUnderFaults|TestABatchInTheBackground
SOAK      = 10m
FLOOD     = 10m
SCHEDULES = 100
FRESHNESS = 60s
SUITES    = . ./internal/tests/... # the root module's tests of the public API
PARALLEL := $(shell n=$$(getconf _NPROCESSORS_ONLN); if [ $$n -gt 2 ]; then echo $$n; else echo 2; fi)# tests at once

WAITING  := $(shell echo $$((2 * $(PARALLEL))))# tests at once where most wait for servers to start, without the race detector

# What make test leaves to make long: each keeps the processors busy, or waits, for some ten seconds or more.
LONG      = TestNamesAreBounded|TooMuchMemory|TestMethodByCredential|TestFault27|WithoutScopeAllDoesNot|AnOlderVersionOnceAChange|TestAStuckSource|TestAQueueGivesBack|TestFault10|TestFault03And04|TestAFloodOfOrders|TestNoStale|TestNoCallerEver|TestARefreshAlwaysLoads|TestEveryCallIsAnswered|RestsAfterAMinute|WhileAProcessRests|TestAReport|TestProcesses|TestABrokenCacheIsCaught|TestAnExpiryIsOneLoad|TestAConnectionThatBreaks|TestTheTableOf|InRealTimeUnderFaults|TestTheSameMark|TestAnInvalidationWakes|TestCredentialsThatNeverCome|TestTheLogNames|TestTheLogHas|TestGenerationsThatMemory|TestNothingThatWasInvalidated|TestFailuresPush|TestCallersAreServedSoon|TestTwoReaders|TestRacesOf|TestWhatIsSentAgain|TestAnAnswerComesAfter|TestWhatIsLostIsTold|TestNothingIsFoundThatIsOlder|TestOutsidersTake|TestSweepLeavesWhat|TestManyTagsOfOneKey|TestReplicatedIsNo|TestNoReadKeepsWhat|TestOthersFollowAKey|TestPromote|TestAPlannedReconnect|TestAConnectionThatEndsOfItself|TestALoadThatIsOvertaken|TestATargetThatHasFailed|TestWhatAPatternIsAbout|TestNoGenerationInUse|TestFault02|ABrokenConnectionVouches|APatternIsHeardByWho|TheLossOfAGenerationsNode|ALoadIsNotJoinedForLong|AFleetGoesOnWithin|ALoadThatDoesNotAskRedisIsNotJoined|ConnectionsDoNotRest|PrometheusShowsWhat|AServerIsObserved|WhatRedisDoesNotReadInTime

# Of the suite on clusters of one node all but what is about time: a starting primary refuses to serve for two seconds.
SLOW      = TestFault0[1-79]|TestFault[12]|TestEveryCall|TestRandom|TestNoStale|TestNoCaller|TestHowLong|ADictionary|AnySize

.PHONY: help test long acl cluster races faults cluster-faults soak flood consistency freshness picture mutants lint fuzz bench compare gateway report cover tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

# At its end a program under the race detector waits a second for what is still to be seen; tests start hundreds of programs.
test long: export GORACE = atexit_sleep_ms=100

# The other libraries are many, and take long to compile with the race detector. The tests of their adapters are part of make compare.
test long: export WITHOUT = bench/compare

test: tools ## run the tests of every module but bench/compare with the race detector, without those of make long; installs redis-server, gcc, prometheus and Chromium where they are missing
	ASIDE_REQUIRE_REDIS=1 scripts/each-module.sh go test -race -parallel $(PARALLEL) -skip '$(LONG)' $(TESTFLAGS) ./...

long: tools ## run those that make test leaves out, which keep the processors busy or wait for long: LONG in the Makefile
	ASIDE_REQUIRE_REDIS=1 scripts/each-module.sh go test -race -parallel $(PARALLEL) -run '$(LONG)' $(TESTFLAGS) ./...

races: tools ## run the races at length, a million rounds and more, and show what they count
	ASIDE_RACES=long ASIDE_REQUIRE_REDIS=1 go test -count=1 -v -p 1 -timeout 60m -run '$(RACES)' $(SUITES)

acl: tools ## run the root module's tests as a Redis user with the ACL rules of docs/redis.md alone; its password is a canary
	ASIDE_ACL=1 ASIDE_REQUIRE_REDIS=1 go test -p 1 -parallel $(WAITING) $(TESTFLAGS) $(SUITES)

cluster: tools ## run the root module's tests on Redis Clusters, those that are about one server on clusters of one node
	ASIDE_CLUSTER=1 ASIDE_REQUIRE_REDIS=1 go test -p 2 -parallel $(WAITING) -skip '$(SLOW)' $(TESTFLAGS) $(SUITES)

faults: tools ## cause each fault, and print the table of them: what is expected, and what was seen
	scripts/faults.sh

cluster-faults: tools ## the same on Redis Clusters of one node; row 8, and what else needs several, on one of six
	ASIDE_CLUSTER=1 scripts/faults.sh

soak: tools ## random faults under load for SOAK (10m), from a seed that is printed; ASIDE_SEED repeats them
	ASIDE_SOAK=$(SOAK) ASIDE_REQUIRE_REDIS=1 go test -count=1 -v -timeout 2h -run '^TestRandomFaults' ./internal/tests/faults

flood: tools ## one admin key sends orders at the rate limit for FLOOD (10m), with Redis healthy, hung and gone, and in memory mode
	scripts/flood.sh $(FLOOD)

consistency: tools ## check histories of processes under SCHEDULES (100) schedules of faults, on one Redis, on a cluster and with Sentinel
	go run ./internal/checker -topology single -schedules $(SCHEDULES) -out histories
	go run ./internal/checker -topology cluster -schedules $(SCHEDULES) -out histories
	go run ./internal/checker -topology sentinel -schedules $(SCHEDULES) -out histories

freshness: tools ## show what Stale and RefreshAhead do at each expiry: 8 processes for FRESHNESS (60s) a strategy, the same with processes killed, and a model
	go run ./bench/freshness -for $(FRESHNESS)
	go run ./bench/freshness -for $(FRESHNESS) -kill -model 0

picture: tools ## make the picture of the dashboard in docs/images, which takes some minutes
	ASIDE_PICTURE=$(CURDIR)/docs/images/dashboard.png ASIDE_REQUIRE_CHROMIUM=1 go test -count=1 -run '^TestThePictureOfTheReadme$$' ./internal/browser

mutants: tools ## take each guard out of the code, one at a time, and show the test that then fails
	go run ./internal/mutants -j 2

lint: ## gofmt, go vet and staticcheck, in every module
	scripts/lint.sh

fuzz: ## run each fuzz target for FUZZTIME (5s)
	scripts/fuzz.sh $(FUZZTIME)

bench: tools ## run the benchmarks of every module, each for BENCHTIME (1s)
	scripts/each-module.sh go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

compare: tools ## test the adapters of other libraries, and compare aside with them; DOCS=docs writes docs/performance.md, COMPARE has other flags: -quick, -only X, -catalog FILE
	go test ./bench/compare
	go run ./bench/compare $(if $(DOCS),-docs $(DOCS)) $(COMPARE)

gateway: ## run the example gateway
	cd examples/gateway && go run .

report: ## run the example gateway's report
	cd examples/gateway && go run . -report

cover: tools ## measure the coverage of the root module's tests; writes cover.out
	ASIDE_REQUIRE_REDIS=1 go test -coverpkg=./... -coverprofile=cover.out ./...
	go tool cover -func=cover.out | tail -n 1

tools:
	@scripts/install-test-tools.sh
