import Adapters
import ArgumentParser
import EventLoops
import Executors
import HTTPServing
import Inference
import InstructionStore
import Logging
import Observability
import OpenAIAPI
import Synchronization
import Training

#if canImport(Glibc)
import Glibc
#endif

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve a model over HTTP with OpenAI's API.",
        discussion: """
            Reads Config/graft.yaml, then the environment (GRAFT_SERVER_PORT and so on), then these options. SIGTERM or Ctrl-C lets running \
            answers finish; a second one ends the process at once. With a certificate the server speaks TLS, and SIGHUP reads the certificate again.
            """)

    @OptionGroup var options: ModelOptions
    @Option(help: "The address to listen on. Default: 127.0.0.1, which only this machine can reach.")
    var host: String?
    @Option(help: "The port; 0 takes a free one. Default: 8080.")
    var port: Int?
    @OptionGroup var tlsOptions: TLSOptions

    func validate() throws {
        if let port, !(0...65535).contains(port) { throw ValidationError("--port takes 0 to 65535, not \(port).") }
    }

    func run() async throws {
        let start = ContinuousClock.now
        let (settings, engineSettings) = try options.engineSettings()
        bootstrapLogging(level: try settings.choice("log.level", Logger.Level.info), format: try settings.choice("log.format", LogFormat.text))
        let logger = Logger(label: "graft")
        let host = host ?? settings.string("server.host", "127.0.0.1")
        let port = try port ?? settings.integer("server.port", 8080, in: 0...65535)
        var serverConfiguration = HTTPServerConfiguration()
        serverConfiguration.maxConnections = try settings.integer("server.max_connections", 4096, in: 1...1_000_000)
        serverConfiguration.limits.bodyBytes = try settings.integer("server.max_body_megabytes", 4, in: 1...1024) << 20
        try serverConfiguration.readTimes(settings)
        let tlsFiles = try tlsOptions.files(settings)
        let listenAddress = ListenAddress(host: host, usesTLS: tlsFiles != nil)
        let isLoopback = listenAddress.isLoopback
        try listenAddress.requireSafe(insecure: tlsOptions.listensInsecurely(settings))
        let tls = try tlsFiles.map { try ServerTLS($0, logger: logger) }
        serverConfiguration.tls = tls?.acceptor
        let hosts = settings.string("server.allowed_hosts", "").split(separator: ",").map { $0.filter { $0 != " " }.lowercased() }
        // Anything may be asked for by any name: for servers behind a proxy that checks it.
        if hosts.contains("*") {
            serverConfiguration.allowedHosts = nil
        } else if !hosts.isEmpty {
            // `graft adapters` asks the server by its own address.
            serverConfiguration.allowedHosts = Set(hosts + [host.contains(":") ? "[\(host)]" : host])
        } else if isLoopback {
            serverConfiguration.allowedHosts = ["localhost", "127.0.0.1", "[::1]", host.contains(":") ? "[\(host)]" : host]
        }
        let access = try AccessSettings(settings)
        if !access.origins.isEmpty { serverConfiguration.crossOrigin = CrossOriginPolicy(origins: access.origins) }
        let drain = Duration.seconds(try settings.integer("server.drain_seconds", 20, in: 0...3600))

        let adapterSettings = try AdapterSettings(settings)
        let uploadBytes = try settings.integer("server.max_upload_megabytes", 512, in: 1...1 << 20) << 20
        let keepsAllExchanges = try settings.bool("log_exchanges.enabled", false)
        let retention = ExchangeRetention(
            days: try settings.integer("log_exchanges.retention_days", 30, in: 1...36_500),
            maximum: try settings.integer("log_exchanges.maximum", 100_000, in: 1...1_000_000_000))
        let home = try AdapterHome(adapterSettings)
        let keys = try serverKeys(of: home.store, host: host, isLoopback: isLoopback, defaults: access.limits)
        let audit = try access.trail(of: home.store, logger)
        let files = try FileStore(home.store)
        let exchanges = try ExchangeLog(home.store, keepsAll: keepsAllExchanges, retention: retention, logger: logger)
        let loaded = try LoadedModel(engineSettings, hashing: true)
        let tokenizer = try loaded.tokenizer()
        let tuningSettings = try TuningSettings(settings)
        let turnstile = tuningSettings.turnstile()
        let engine = try loaded.engine(engineSettings, tokenizer: tokenizer, turnstile: turnstile)
        do { try await engine.warmUp() } catch { throw CommandError("\(loaded.path): \(error)") }
        let served = ServedModel(
            name: loaded.name, tokenizer: tokenizer, chatTemplate: try loaded.chatTemplate(), contextLength: engine.limits.contextLength,
            created: Int(time(nil)), digest: loaded.digest)
        let adapters = try home.registry(
            base: AdapterBase(
                name: loaded.name, digest: loaded.digest, configuration: loaded.model.configuration, numerics: engineSettings.exact ? .exact : .fast))
        reportUnserved(adapters, logger)
        if let wanted = adapterSettings.defaultAdapter { try requireServable(wanted, adapters) }
        var apiConfiguration = APIConfiguration(version: Version.current)
        apiConfiguration.adapterUploadBytes = uploadBytes
        apiConfiguration.fileBytes = uploadBytes
        apiConfiguration.loraPathsDirectory = adapterSettings.loraPathsDirectory
        apiConfiguration.allowsGlobalLoRA = adapterSettings.allowsGlobalLoRA
        let encoder = served.encoder
        let context = loaded.model.configuration.contextLength, longest = min(tuningSettings.maximumLength, context)
        let tuning = try tuningSettings.isEnabled
            ? tuningSettings.queue(
                home: home, loaded: loaded, encoder: encoder, adapters: adapters, files: files, turnstile: turnstile,
                reserved: loaded.cacheBytes(engineSettings) + adapterSettings.budgetBytes,
                notice: { job, message in logger.warning("tuning", metadata: ["job": "\(job)", "cause": "\(message)"]) },
                ended: { job in audit.record(ended: job) }) : nil
        let api = APIServer(
            service: engine, models: AdapterModels(base: served, adapters: adapters, defaultAdapter: adapterSettings.defaultAdapter),
            adapters: adapters, files: files,
            inspect: { bytes throws(DatasetError) in
                var report = try DatasetReader(encoder: encoder, maximumLength: longest).read(bytes).report
                // Rows that only a job with a larger lora.max_length can use are no bad rows; one without leaves them out, and says so.
                if report.problemCount > 0, longest < context {
                    let whole = try DatasetReader(encoder: encoder, maximumLength: context).read(bytes).report
                    if whole.problemCount < report.problemCount { report = whole }
                }
                return FileFindings(exampleCount: report.exampleCount, problemCount: report.problemCount, json: report.json)
            }, exchanges: exchanges, tuning: tuning, keys: keys, audit: audit, configuration: apiConfiguration, registry: MetricsRegistry(), logger: logger)

        let loop = try EventLoop(name: "graft-http")
        let server = HTTPServer(loop: loop, configuration: serverConfiguration, application: api)
        let stop = try await StopSignals(loop: loop, server: server)
        let bound = try await server.listen(host: host, port: port)
        let address = listenAddress.url(port: bound)
        try home.data.announce(address: address, certificate: tls?.fingerprint)
        try await tls?.watch(server) { tls in
            do { try home.data.announce(address: address, certificate: tls.fingerprint) } catch {
                logger.error("commands on this machine do not know the new certificate", metadata: ["cause": "\(error)"])
            }
        }
        logger.info(
            "ready",
            metadata: [
                "model": "\(loaded.name)", "address": "\(address)", "kernels": "\(loaded.variant.name)",
                "threads": "\(loaded.pool.threadCount)", "context": "\(engine.limits.contextLength)", "adapters": "\(adapters.records().count)", "keys": "\(keys.isRequired ? "required" : "none")",
                "seconds": "\((ContinuousClock.now - start).inSeconds.rounded(toPlaces: 2))",
            ])
        tuning?.start()
        await server.schedule(after: .zero, every: .seconds(2)) { _ in engine.beat() }
        await stop.wait()
        logger.info("stopping: no new requests, running answers may finish", metadata: ["seconds": "\(drain.components.seconds)"])
        api.beginDraining()
        // A job may take seconds to its next step; answers that are being written do not wait for it. Who asks meanwhile is told.
        let closing = tuning.map { tuning in NamedThread(name: "graft-closing") { tuning.shutdown() } }
        await server.drain(deadline: drain)
        closing?.join()
        await server.close()
        await engine.shutdown()
        await stop.close()
        await tls?.stopWatching(server)
        loop.shutdown()
        api.keepPendingExchanges()
        logger.info("stopped")
    }
}

/// A default that cannot be served would turn every request without a model into an error.
private func requireServable(_ reference: AdapterReference, _ adapters: AdapterRegistry) throws {
    guard let version = adapters.resolve(reference, owner: Owner.local, stickyKey: nil) else {
        throw CommandError("adapters.default: there is no adapter '\(reference)'; `graft adapters list` shows those that are")
    }
    if let reason = version.quarantine { throw CommandError("adapters.default: \(version.qualifiedName) is quarantined: \(reason)") }
    guard version.baseDigest == adapters.base.digest else {
        throw CommandError("adapters.default: \(version.qualifiedName) was made for \(version.baseName), this server runs \(adapters.base.name)")
    }
}

/// Says at the start which published adapters this server cannot give out, and why.
private func reportUnserved(_ adapters: AdapterRegistry, _ logger: Logger) {
    for version in adapters.records().flatMap(\.versions) {
        if let reason = version.quarantine {
            logger.warning("an adapter is quarantined", metadata: ["adapter": "\(version.qualifiedName)", "cause": "\(reason)"])
        } else if version.baseDigest != adapters.base.digest {
            logger.info("an adapter belongs to another model", metadata: ["adapter": "\(version.qualifiedName)", "base": "\(version.baseName)"])
        }
    }
}

/// Waits for SIGTERM or SIGINT; the second one ends the process.
private final class StopSignals: Sendable {
    private struct State {
        var waiter: CheckedContinuation<Void, Never>?
        var count = 0
    }

    private let state = Mutex(State())
    private let server: HTTPServer
    // Touched on the loop's thread only.
    nonisolated(unsafe) private var watchers: [SignalWatcher] = []

    init(loop: EventLoop, server: HTTPServer) async throws {
        self.server = server
        try await install(loop, on: server)
    }

    private func install(_ loop: EventLoop, on server: isolated HTTPServer) throws {
        for number in [SIGTERM, SIGINT] {
            watchers.append(try SignalWatcher(loop: loop, signal: number) { [weak self] in self?.received() })
        }
    }

    private func received() {
        let (waiter, count) = state.withLock { state -> (CheckedContinuation<Void, Never>?, Int) in
            state.count += 1
            defer { state.waiter = nil }
            return (state.waiter, state.count)
        }
        if count > 1 { _exit(1) }
        waiter?.resume()
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isDone = state.withLock { state in
                if state.count == 0 { state.waiter = continuation }
                return state.count > 0
            }
            if isDone { continuation.resume() }
        }
    }

    func close() async {
        await close(on: server)
    }

    private func close(on server: isolated HTTPServer) {
        for watcher in watchers { watcher.close() }
        watchers.removeAll()
    }
}
