import EventLoops
import HTTP1
import HTTPTypes

/// An HTTP/1.1 server on an event loop. The actor's executor is the loop, so sockets, timers and the application's handlers share one
/// thread and never wait for each other's locks.
///
/// The application answers with `respond`, or with `startStream`, `write` and `finish`. From other threads use `post`.
public actor HTTPServer {
    /// A count of what happened since the server was made.
    public struct Statistics: Sendable, Equatable {
        public var openConnections = 0
        public var acceptedConnections = 0
        public var requests = 0
        public var rejections = 0
        /// Exchanges whose client went away before the response was finished, or before the whole request had come.
        public var abandonedExchanges = 0

        public init() {}
    }

    /// Names a job of `schedule`.
    public struct TimerID: Hashable, Sendable {
        let number: UInt64
    }

    public nonisolated let loop: EventLoop
    public nonisolated let configuration: HTTPServerConfiguration
    let application: any HTTPApplication
    let stamps = ResponseStamps()
    public private(set) var statistics = Statistics()

    private var listener: TCPListener?
    var connections: [UInt64: Connection] = [:]
    private var lastSerial: UInt64 = 0
    /// Whether `drain` or `close` has begun.
    public private(set) var isDraining = false
    private var drainWaiters: [CheckedContinuation<Void, Never>] = []

    private var timers: [UInt64: LoopTimer] = [:]
    private var lastTimer: UInt64 = 0
    private var sweeper: LoopTimer?
    /// When the sweeper will run; `.max` when it will not.
    private var nextSweep = UInt64.max

    /// How often a client is looked for whose input is not being read, in milliseconds.
    private static let probePeriod: UInt64 = 500
    /// Connections above the limit that are being told so, at most.
    private static let refusalSlots = 64

    public nonisolated var unownedExecutor: UnownedSerialExecutor {
        loop.asUnownedSerialExecutor()
    }

    /// - Parameter loop: runs until the owner shuts it down, which should come after `close` or `drain`.
    public init(loop: EventLoop, configuration: HTTPServerConfiguration, application: any HTTPApplication) {
        self.loop = loop
        self.configuration = configuration
        self.application = application
    }

    // MARK: - Beginning and end

    /// Binds, listens and accepts from now on.
    /// - Parameters:
    ///   - host: an address or name of this machine.
    ///   - port: 0 lets the system choose.
    /// - Returns: the bound port.
    /// - Throws: `cannotListen`, with the address and the system's reason.
    public func listen(host: String, port: Int) throws(EventLoopError) -> Int {
        guard listener == nil else {
            throw EventLoopError(.cannotListen, "listening on \(host) port \(port): this server listens already")
        }
        let listener = try TCPListener(loop: loop, host: host, port: port, sendBufferSize: configuration.sendBufferSize) { stream in
            // The listener calls on the loop's thread, and until `close` it keeps the server alive.
            nonisolated(unsafe) let stream = stream
            self.assumeIsolated { $0.accept(stream) }
        }
        self.listener = listener
        return listener.port
    }

    /// Waits for the responses in progress, each of which then ends its connection, as do those to requests that come meanwhile. Until `close`, which is to
    /// follow, connections are still accepted, so that clients are told what is going on and not just refused.
    /// - Parameter deadline: after this the application is told to end what is left, and what that leaves is cut off.
    public func drain(deadline: Duration) async {
        isDraining = true
        for connection in connections.values {
            connection.machine.drain()
        }
        guard connections.values.contains(where: { $0.machine.isBusy }) else { return }
        let timer = schedule(after: deadline) { server in
            server.application.drainIsOver(on: server)
            server.schedule(after: server.configuration.farewellTimeout) { $0.closeConnections() }
        }
        await withCheckedContinuation { drainWaiters.append($0) }
        cancel(timer)
    }

    /// Ends the waiting of `drain` when nobody has to be waited for any more.
    private func noteDrainProgress() {
        guard isDraining, !drainWaiters.isEmpty, !connections.values.contains(where: { $0.machine.isBusy }) else { return }
        let waiters = drainWaiters
        drainWaiters.removeAll()
        for waiter in waiters {
            waiter.resume()
        }
    }

    /// Stops accepting and cuts every connection off.
    public func close() {
        isDraining = true
        stopListening()
        closeConnections()
        for timer in timers.values {
            timer.close()
        }
        timers.removeAll()
        sweeper?.close()
        sweeper = nil
        nextSweep = .max
    }

    private func stopListening() {
        listener?.close()
        listener = nil
    }

    private func closeConnections() {
        for connection in Array(connections.values) {
            abandon(connection.machine.failed(), of: connection)
            connection.stream.close()
        }
    }

    // MARK: - From other threads and later

    /// Runs a job on the server from any thread. Jobs run in the order in which they were posted; those that come while the server is
    /// busy share one wake-up. After the loop's end they are dropped.
    public nonisolated func post(_ job: @escaping @Sendable (isolated HTTPServer) -> Void) {
        loop.execute { self.assumeIsolated { job($0) } }
    }

    /// Runs a job after a while, and then every `period` if one is given.
    @discardableResult
    public func schedule(
        after delay: Duration, every period: Duration? = nil, _ job: @escaping @Sendable (isolated HTTPServer) -> Void
    ) -> TimerID {
        lastTimer += 1
        let id = TimerID(number: lastTimer)
        // A loop that cannot make a timer has ended, and nothing runs on it any more.
        guard let timer = try? LoopTimer(loop: loop) else { return id }
        timers[id.number] = timer
        let repeats = period.map { max(1, ConnectionMachine.milliseconds($0)) } ?? 0
        timer.start(after: ConnectionMachine.milliseconds(delay), every: repeats) {
            self.assumeIsolated { server in
                if repeats == 0 { server.cancel(id) }
                job(server)
            }
        }
        return id
    }

    /// Forgets a scheduled job. Nothing happens if it ran.
    public func cancel(_ timer: TimerID) {
        timers.removeValue(forKey: timer.number)?.close()
    }

    // MARK: - Answers

    /// A whole response. The server adds content-length, date, connection and x-request-id.
    public func respond(to exchange: ExchangeID, _ head: HTTPResponse, body: [UInt8]) {
        guard let connection = connections[exchange.connection] else { return }
        stamps.refresh(now: loop.now)
        connection.machine.respond(exchange.sequence, head, body: body, output: &connection.stream.output, now: loop.now)
        settle(connection)
    }

    /// Begins a response whose body comes in pieces: chunked, or ended by the connection's end for an HTTP/1.0 client.
    /// - Parameter keepAlive: for server-sent events: after each such silence a comment is sent, which clients ignore.
    public func startStream(_ exchange: ExchangeID, _ head: HTTPResponse, keepAlive: Duration? = nil) {
        guard let connection = connections[exchange.connection] else { return }
        stamps.refresh(now: loop.now)
        connection.machine.startStream(
            exchange.sequence, head, keepAlive: keepAlive.map(ConnectionMachine.milliseconds) ?? 0, output: &connection.stream.output,
            now: loop.now)
        settle(connection)
    }

    /// Begins a response whose body comes in pieces and has a known length.
    /// - Parameter length: in bytes; exactly as many are to be written before `finish`, or `abort` called.
    public func startBody(_ exchange: ExchangeID, _ head: HTTPResponse, length: Int) {
        guard let connection = connections[exchange.connection] else { return }
        stamps.refresh(now: loop.now)
        connection.machine.startBody(exchange.sequence, head, length: length, output: &connection.stream.output, now: loop.now)
        settle(connection)
    }

    /// Gives up a response whose body has begun and cannot go on: the connection ends before the body does, by which the client sees that something is
    /// missing. Nothing more is called for the exchange.
    public func abort(_ exchange: ExchangeID) {
        guard let connection = connections[exchange.connection], connection.machine.exchange?.sequence == exchange.sequence else { return }
        _ = connection.machine.failed()
        connection.stream.close()
    }

    /// A piece of a streamed body. What is written in one turn of the loop leaves with one system call.
    public func write(_ exchange: ExchangeID, _ bytes: [UInt8]) {
        guard let connection = connections[exchange.connection] else { return }
        connection.machine.write(exchange.sequence, bytes, output: &connection.stream.output, now: loop.now)
        settle(connection)
    }

    /// Ends a streamed body.
    public func finish(_ exchange: ExchangeID) {
        guard let connection = connections[exchange.connection] else { return }
        connection.machine.finish(exchange.sequence, output: &connection.stream.output, now: loop.now)
        settle(connection)
    }
}

// MARK: - Bodies in pieces

extension HTTPServer {
    /// Reads on after the receiver of a body has said that it has enough. Nothing happens when the exchange is not waiting for that.
    public func resumeBody(of exchange: ExchangeID) {
        guard let connection = connections[exchange.connection], connection.machine.nextSequence == exchange.sequence else { return }
        connection.machine.resumeBody(now: loop.now)
        settle(connection)
    }
}

// MARK: - Connections

extension HTTPServer {
    private func accept(_ stream: TCPStream) {
        statistics.acceptedConnections += 1
        let excess = connections.count - configuration.maxConnections
        guard excess < HTTPServer.refusalSlots else { return stream.close() }
        lastSerial += 1
        let now = loop.now
        let machine = ConnectionMachine(configuration: configuration, stamps: stamps, now: now)
        if isDraining { machine.drain() }
        let connection = Connection(serial: lastSerial, stream: stream, machine: machine, server: self)
        stream.delegate = connection
        stream.filter = configuration.tls?.makeFilter()
        connections[connection.serial] = connection
        statistics.openConnections = connections.count
        stream.startReading()
        if excess >= 0 {
            reject(HTTPRejection(.tooManyConnections, "all \(configuration.maxConnections) connections are in use; try again later"), connection)
        }
        settle(connection)
    }

    func received(_ bytes: UnsafeRawBufferPointer, on connection: Connection) {
        stamps.refresh(now: loop.now)
        var rest = bytes
        if connection.pending.isEmpty {
            pump(connection, &rest)
            connection.pending.append(contentsOf: rest)
        } else if connection.machine.phase == .receiving || connection.machine.phase == .responding {
            connection.pending.append(contentsOf: bytes)
        }
        settle(connection)
    }

    /// The client speaks plain HTTP on a port for TLS. It is told so in its own language; what it asked for is not looked at.
    func lostTLS(on connection: Connection) {
        stamps.refresh(now: loop.now)
        reject(HTTPRejection(.needsTLS, "this port speaks TLS: ask with https:// instead of http://"), connection)
        settle(connection)
    }

    func peerEnded(_ connection: Connection) {
        // Answers to what came with the end may still be taken.
        connection.stream.flush()
        guard !connection.stream.isClosed else { return }
        abandon(connection.machine.peerEnded(unsent: connection.stream.unsentCount), of: connection)
        settle(connection)
    }

    func failed(_ connection: Connection) {
        abandon(connection.machine.failed(), of: connection)
        connection.stream.close()
    }

    func didSend(on connection: Connection) {
        settle(connection)
    }

    func didClose(_ connection: Connection) {
        abandon(connection.machine.failed(), of: connection)
        connections[connection.serial] = nil
        statistics.openConnections = connections.count
        noteDrainProgress()
    }

    private func abandon(_ sequence: UInt64?, of connection: Connection) {
        guard let sequence else { return }
        connection.receiver = nil
        connection.stream.endsOrderly = false
        statistics.abandonedExchanges += 1
        application.exchangeClosed(ExchangeID(connection: connection.serial, sequence: sequence), on: self)
    }

    /// Lets the machine work on input and does what it asks for. Not reentrant: an answer from inside a handler only changes the
    /// machine, and this loop goes on from there.
    private func pump(_ connection: Connection, _ input: inout UnsafeRawBufferPointer) {
        guard !connection.isPumping else { return }
        connection.isPumping = true
        defer { connection.isPumping = false }
        let machine = connection.machine
        while let action = machine.next(&input, output: &connection.stream.output, now: loop.now) {
            switch action {
            case .admit(let head):
                if let response = configuration.crossOrigin?.preflight(head.request) {
                    machine.refuse(response, body: [], output: &connection.stream.output, now: loop.now)
                    continue
                }
                let exchange = ExchangeID(connection: connection.serial, sequence: machine.nextSequence)
                switch application.admit(head.request, path: head.path, exchange: exchange, on: self) {
                case .accept(let bodyLimit):
                    machine.admit(bodyLimit: bodyLimit)
                case .stream(let bodyLimit, let receiver):
                    machine.admit(bodyLimit: bodyLimit, streams: true)
                    connection.receiver = receiver
                case .refuse(let response, let body):
                    machine.refuse(response, body: body, output: &connection.stream.output, now: loop.now)
                }
            case .body(let piece):
                if connection.receiver?.receive(piece) == false { machine.pauseBody() }
            case .dispatch(var request):
                statistics.requests += 1
                if let receiver = connection.receiver {
                    connection.receiver = nil
                    if !request.body.isEmpty { _ = receiver.receive(request.body) }
                    request.body = RequestBody()
                }
                application.handle(incoming(request, on: connection), on: self)
            case .reject(let rejection):
                reject(rejection, connection)
            }
        }
        if machine.phase == .lingering || machine.phase == .closed {
            // What comes after the last request is nobody's.
            input = UnsafeRawBufferPointer(start: nil, count: 0)
        }
    }

    private func incoming(_ request: ConnectionMachine.Request, on connection: Connection) -> IncomingRequest {
        IncomingRequest(
            exchange: ExchangeID(connection: connection.serial, sequence: request.sequence), head: request.head.request,
            path: request.head.path, query: request.head.query.map { PercentCoding.pairs($0) } ?? [], body: request.body,
            requestID: request.requestID, receivedAt: .now)
    }

    private func reject(_ rejection: HTTPRejection, _ connection: Connection) {
        statistics.rejections += 1
        connection.receiver = nil
        if let sequence = connection.machine.loseAdmitted() {
            application.exchangeClosed(ExchangeID(connection: connection.serial, sequence: sequence), on: self)
        }
        let (response, body) = application.response(to: rejection)
        connection.machine.answer(response, body: body, output: &connection.stream.output, now: loop.now)
    }

    /// Brings socket, timers and application in line with the machine after anything that changed it.
    private func settle(_ connection: Connection) {
        let machine = connection.machine
        let stream = connection.stream
        guard !stream.isClosed, !connection.isPumping else { return }
        repeat {
            pumpPending(connection)
            if stream.output.count > configuration.congestionWatermark {
                // Whether this is too much for the client shows when it is offered.
                stream.flush()
            }
        } while !stream.isClosed && !connection.pending.isEmpty && machine.isReady(unsent: stream.unsentCount)
        if let isCongested = machine.congestionChange(unsent: stream.unsentCount), let sequence = machine.exchange?.sequence {
            application.exchange(ExchangeID(connection: connection.serial, sequence: sequence), isCongested: isCongested, on: self)
        }
        guard !stream.isClosed else { return }
        if machine.isFinishing {
            connection.pending = []
            stream.finishWriting()
            // Nothing more will come that it could be joined with.
            stream.flush()
        } else if !stream.output.isEmpty {
            stream.setNeedsFlush()
        }
        // Reading goes on while a response is pending, to notice that the client went away.
        if connection.pending.count <= configuration.pipelineBuffer {
            stream.startReading()
            connection.probeTime = .max
        } else if stream.isReading {
            stream.stopReading()
            connection.probeTime = loop.now + HTTPServer.probePeriod
        }
        machine.watchOutput(unsent: stream.unsentCount, taken: stream.takenCount, now: loop.now)
        if machine.phase == .closed {
            return stream.close()
        }
        sweep(by: min(machine.deadline, connection.probeTime))
    }

    private func pumpPending(_ connection: Connection) {
        guard !connection.pending.isEmpty, connection.machine.isReady(unsent: connection.stream.unsentCount) else { return }
        let bytes = connection.pending
        connection.pending = []
        bytes.withUnsafeBytes { bytes in
            var rest = bytes
            pump(connection, &rest)
            connection.pending = Array(rest)
        }
    }

    // MARK: - Deadlines

    /// Makes sure that the sweeper runs at `time` at the latest. Deadlines mostly move away, so one timer for all connections that
    /// looks again when the earliest was due costs nearly nothing.
    private func sweep(by time: UInt64) {
        guard time < nextSweep else { return }
        if sweeper == nil {
            sweeper = try? LoopTimer(loop: loop)
        }
        nextSweep = time
        let now = loop.now
        sweeper?.start(after: time > now ? time - now : 0) {
            self.assumeIsolated { $0.sweep() }
        }
    }

    private func sweep() {
        nextSweep = .max
        let now = loop.now
        stamps.refresh(now: now)
        var earliest = UInt64.max
        for connection in connections.values where !connection.stream.isClosed {
            if connection.machine.deadline <= now {
                expire(connection, now: now)
            }
            if connection.probeTime <= now {
                probe(connection, now: now)
            }
            earliest = min(earliest, connection.machine.deadline, connection.probeTime)
        }
        if earliest < .max {
            // Not more often than every few milliseconds, however many deadlines there are.
            sweep(by: max(earliest, now + 5))
        }
    }

    /// Input that nobody reads hides the client's end, so the system is asked for it.
    private func probe(_ connection: Connection, now: UInt64) {
        connection.probeTime = now + HTTPServer.probePeriod
        if connection.stream.peerIsGone() {
            peerEnded(connection)
        }
    }

    private func expire(_ connection: Connection, now: UInt64) {
        let stream = connection.stream
        while true {
            switch connection.machine.expire(now: now, unsent: stream.unsentCount, taken: stream.takenCount) {
            case .nothing:
                return settle(connection)
            case .close:
                abandon(connection.machine.failed(), of: connection)
                return stream.close()
            case .reject(let rejection):
                reject(rejection, connection)
                return settle(connection)
            case .ping:
                if let sequence = connection.machine.exchange?.sequence {
                    connection.machine.write(sequence, ServerSentEvent.keepAlive, output: &stream.output, now: now)
                }
            }
        }
    }
}
