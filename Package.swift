// swift-tools-version: 6.2
import PackageDescription

// The targets and what each may import are the table of AGENTS.md; `Scripts/check-house` holds the two together.
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
    name: "graft",
    products: [.executable(name: "graft", targets: ["graft"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-http-types", exact: "1.8.0", traits: []),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
    ],
    targets: [
        // Layer 0: C.
        .target(name: "CKernels"),
        .target(name: "CLLHTTP"),
        .systemLibrary(name: "CUV", pkgConfig: "libuv", providers: [.apt(["libuv1-dev"])]),
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])]),
        .target(name: "COpenBLAS"),
        // Layer 1.
        .target(name: "JSON"),
        .target(name: "Kernels", dependencies: ["CKernels"]),
        .target(name: "Executors"),
        .target(name: "TLS", dependencies: ["COpenSSL"]),
        .target(name: "HTTP1", dependencies: ["CLLHTTP", httpTypes]),
        .target(name: "Observability", dependencies: [logging]),
        // Layer 2.
        .target(name: "GGUF", dependencies: ["Kernels", "JSON"]),
        .target(name: "ModelStore", dependencies: ["TLS"]),
        .target(name: "EventLoops", dependencies: ["CUV", "Executors"]),
        // Layer 3.
        .target(name: "Tokenization", dependencies: ["GGUF", "JSON"]),
        .target(name: "Modeling", dependencies: ["Kernels", "GGUF"]),
        .target(name: "HTTPServing", dependencies: ["EventLoops", "HTTP1", "TLS", httpTypes]),
        .target(name: "InstructionStore", dependencies: ["TLS", grdb]),
        // Layer 4.
        .target(name: "Adapters", dependencies: ["Modeling", "GGUF", "Kernels", "InstructionStore", "TLS", "JSON"]),
        .target(name: "Inference", dependencies: ["Modeling", "Tokenization", "Executors", "Kernels"]),
        .target(name: "Training", dependencies: ["Modeling", "Tokenization", "Kernels", "JSON", "COpenBLAS"]),
        // Layer 5.
        .target(name: "Tuning", dependencies: ["Training", "Adapters", "InstructionStore", "Modeling", "Executors", "TLS", "JSON"]),
        // Layer 6.
        .target(
            name: "OpenAIAPI",
            dependencies: [
                "Inference", "Adapters", "Tuning", "Training", "InstructionStore", "Modeling", "Tokenization", "HTTPServing", "HTTP1", "Executors",
                "Observability", "TLS", "JSON", httpTypes, logging,
            ]),
        // Layer 7.
        .executableTarget(
            name: "graft",
            dependencies: [
                "OpenAIAPI", "Tuning", "Training", "Inference", "Adapters", "InstructionStore", "Modeling", "Tokenization", "HTTPServing", "EventLoops", "ModelStore",
                "Executors", "TLS", "HTTP1", "GGUF", "Kernels", "Observability", "JSON",
                argumentParser, logging, yams,
            ]),
        // Tests.
        .target(name: "TestSupport", dependencies: ["COpenSSL"], path: "Tests/TestSupport"),
        .target(name: "CTestSupport", path: "Tests/CTestSupport"),
        .target(
            name: "FuzzTargets",
            dependencies: ["OpenAIAPI", "Training", "Inference", "Adapters", "Modeling", "Tokenization", "HTTP1", "GGUF", "Kernels", "JSON", httpTypes, "TestSupport"],
            path: "Tests/FuzzTargets"),
        .testTarget(name: "FuzzTests", dependencies: ["FuzzTargets", "TestSupport"], exclude: ["Corpus", "Dictionaries"]),
        .testTarget(name: "JSONTests", dependencies: ["JSON"]),
        .testTarget(name: "KernelsTests", dependencies: ["Kernels", "CKernels"], exclude: ["Fixtures"]),
        .testTarget(name: "ExecutorsTests", dependencies: ["Executors"]),
        .testTarget(name: "TLSTests", dependencies: ["TLS", "TestSupport", "CTestSupport"]),
        .testTarget(name: "HTTP1Tests", dependencies: ["HTTP1", httpTypes]),
        .testTarget(name: "ObservabilityTests", dependencies: ["Observability", logging]),
        .testTarget(name: "GGUFTests", dependencies: ["GGUF", "Kernels"]),
        .testTarget(name: "ModelStoreTests", dependencies: ["ModelStore", "TLS"], exclude: ["Fixtures"]),
        .testTarget(name: "EventLoopsTests", dependencies: ["EventLoops"]),
        .testTarget(name: "TokenizationTests", dependencies: ["Tokenization", "GGUF", "JSON", "TestSupport"], exclude: ["Fixtures", "ChatTemplate/Fixtures"]),
        .testTarget(name: "ModelingTests", dependencies: ["Modeling", "Kernels", "GGUF", "TestSupport"]),
        .testTarget(name: "InstructionStoreTests", dependencies: ["InstructionStore", "TLS", "TestSupport"]),
        .testTarget(
            name: "AdaptersTests", dependencies: ["Adapters", "InstructionStore", "Modeling", "GGUF", "Kernels", "JSON", "TLS", "TestSupport"], exclude: ["Fixtures"]),
        .testTarget(name: "HTTPServingTests", dependencies: ["HTTPServing", "EventLoops", "TLS", "TestSupport", httpTypes]),
        .testTarget(
            name: "InferenceTests", dependencies: ["Inference", "Adapters", "Modeling", "Tokenization", "GGUF", "Executors", "Kernels", "TestSupport"],
            exclude: ["Fixtures"]),
        .testTarget(
            name: "TrainingTests", dependencies: ["Training", "Adapters", "Modeling", "Tokenization", "GGUF", "Kernels", "JSON", "TestSupport"]),
        .testTarget(
            name: "TuningTests",
            dependencies: ["Tuning", "Training", "Adapters", "InstructionStore", "Modeling", "Tokenization", "GGUF", "Kernels", "Executors", "TLS", "JSON", "TestSupport"]),
        .testTarget(
            name: "OpenAIAPITests",
            dependencies: [
                "OpenAIAPI", "Tuning", "Training", "TestSupport", "CTestSupport", "Inference", "Adapters", "InstructionStore", "Modeling", "Tokenization", "GGUF", "Kernels", "HTTPServing", "EventLoops", "Executors",
                "Observability", "JSON", httpTypes, logging,
            ]),
        .testTarget(name: "graftTests", dependencies: ["graft", "Adapters", "ModelStore", "GGUF", "Kernels", "OpenAIAPI", "Inference", "HTTPServing", "JSON", logging]),
    ],
    swiftLanguageModes: [.v6]
)
