module github.com/gatewayz/aside/asidecodec

go 1.25.0

require (
	github.com/bytedance/sonic v1.15.5
	github.com/gatewayz/aside v0.0.0-00010101000000-000000000000
	github.com/klauspost/compress v1.20.3
	github.com/redis/rueidis v1.0.79
	github.com/stretchr/testify v1.12.1
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/bytedance/gopkg v0.1.3 // indirect
	github.com/bytedance/sonic/loader v0.5.3 // indirect
	github.com/cloudwego/base64x v0.1.6 // indirect
	github.com/fxamacker/cbor/v2 v2.10.0 // indirect
	github.com/klauspost/cpuid/v2 v2.2.9 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/twitchyliquid64/golang-asm v0.15.1 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/arch v0.0.0-20210923205945-b76863e36670 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/gatewayz/aside => ../
