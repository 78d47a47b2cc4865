import Adapters
import Executors
import HTTPServing
import HTTPTypes
import Inference
import InstructionStore
import Modeling
import Synchronization

/// Where the engine's events go: one post to the server a step, whatever the number of requests.
final class EngineSink<Transport: ResponseTransport>: GenerationSink {
    private weak let handlers: APIHandlers<Transport>?
    private weak let transport: Transport?

    init(_ handlers: APIHandlers<Transport>, _ transport: Transport) {
        self.handlers = handlers
        self.transport = transport
    }

    func deliver(_ events: [GenerationEvent]) {
        guard let handlers, let transport else { return }
        transport.post { transport in handlers.receive(events, on: transport) }
    }
}

extension APIHandlers {
    /// Decodes a generation request, here or on a thread of its own, and submits it.
    func generate(_ request: APIRequest, route: APIRoute, on transport: isolated Transport) throws(APIError) {
        if isDraining { throw .shuttingDown }
        try state.on(transport).limiter.takeRequest(of: request.caller, at: currentTime)
        let owner = request.caller.owner
        try prepare(
            request, route: route, on: transport,
            work: { preparation, body throws(APIError) in route == .chat ? try preparation.chat(body, owner: owner) : try preparation.completion(body, owner: owner) },
            then: { (handlers: APIHandlers, prepared: PreparedGeneration, transport: isolated Transport) throws(APIError) in
                try handlers.submit(prepared, for: request, route: route, on: transport)
            })
    }

    /// Runs `work` on the request's body, at once when it is small, and `then` with its result on the server. A small body whose conversation takes the
    /// template long is done anew on a thread of its own.
    ///
    /// When the client leaves in between, `then` does not run. What either throws is the answer.
    func prepare<Prepared: Sendable>(
        _ request: APIRequest, route: APIRoute, on transport: isolated Transport,
        work: @escaping @Sendable (RequestPreparation, [UInt8]) throws(APIError) -> Prepared,
        then: @escaping @Sendable (APIHandlers, Prepared, isolated Transport) throws(APIError) -> Void
    ) throws(APIError) {
        if request.body.count <= configuration.inlineBodyBytes {
            let prepared: Prepared?
            do throws(APIError) {
                prepared = try work(preparation.inline, request.body.joined())
            } catch {
                guard error.code == APIError.templateLimit else { throw error }
                prepared = nil
            }
            if let prepared { return try then(self, prepared, transport) }
        }
        let preparation = preparation
        try perform(
            request, route: route, with: preparationExecutor, on: transport, work: { () throws(APIError) in try work(preparation, request.body.joined()) },
            then: then)
    }

    /// Runs `work` on a thread of `executor`, and `then` with its result on the server.
    ///
    /// When the client leaves in between, `then` does not run. What either throws is the answer.
    func perform<Outcome: Sendable>(
        _ request: APIRequest, route: APIRoute, with executor: BlockingExecutor, on transport: isolated Transport,
        work: @escaping @Sendable () throws(APIError) -> Outcome,
        then: @escaping @Sendable (APIHandlers, Outcome, isolated Transport) throws(APIError) -> Void
    ) throws(APIError) {
        state.on(transport).preparing[request.exchange] = route
        do throws(ExecutorError) {
            try executor.submit {
                let result: Result<Outcome, APIError>
                do throws(APIError) {
                    result = .success(try work())
                } catch {
                    result = .failure(error)
                }
                transport.post { transport in
                    self.endUpload(request.exchange, on: transport)
                    guard self.state.on(transport).preparing.removeValue(forKey: request.exchange) != nil else { return }
                    do throws(APIError) {
                        try then(self, try result.get(), transport)
                    } catch {
                        self.refuse(request.exchange, error, route: route, request: request, on: transport)
                    }
                }
            }
        } catch {
            state.on(transport).preparing[request.exchange] = nil
            throw APIError(error)
        }
    }

    /// Submits a request with its adapters, which it keeps from now on whatever becomes of their names.
    private func submit(
        _ prepared: PreparedGeneration, for request: APIRequest, route: APIRoute, on transport: isolated Transport
    ) throws(APIError) {
        let target = prepared.target
        guard !target.parts.isEmpty else { return try submit(prepared, .none, for: request, route: route, on: transport) }
        if isDraining { throw .shuttingDown }
        let adapters = try requireAdapters()
        var parts: [(adapter: Adapter, weight: Float)] = []
        for part in target.parts {
            guard let adapter = adapters.resident(part.version) else { break }
            parts.append((adapter, part.weight))
        }
        guard parts.count < target.parts.count else {
            return try submit(prepared, AdapterSet(parts), for: request, route: route, on: transport)
        }
        let request = request.withoutBody
        try perform(
            request, route: route, with: adapterLoads, on: transport,
            work: { () throws(APIError) in try self.load(target, from: adapters, for: request) },
            then: { (handlers: APIHandlers, adapters: AdapterSet, transport: isolated Transport) throws(APIError) in
                try handlers.submit(prepared, adapters, for: request, route: route, on: transport)
            })
    }

    /// Blocking: reads what is not in memory.
    private func load(_ target: ModelTarget, from adapters: any AdapterService, for request: APIRequest) throws(APIError) -> AdapterSet {
        do throws(AdapterError) {
            var parts: [(adapter: Adapter, weight: Float)] = []
            for part in target.parts { parts.append((try adapters.load(part.version), part.weight)) }
            return AdapterSet(parts)
        } catch {
            let refusal = refusal(error, in: .use, param: target.isBlend ? "lora" : "model", requestID: request.requestID)
            metrics.adapters.count(target, status: refusal.status.code)
            throw refusal
        }
    }

    private func submit(
        _ prepared: PreparedGeneration, _ adapters: AdapterSet, for request: APIRequest, route: APIRoute, on transport: isolated Transport
    ) throws(APIError) {
        if isDraining { throw .shuttingDown }
        let state = state.on(transport)
        // The key may have ended while the prompt or an adapter was prepared.
        guard keys.isStillLetIn(request.caller) else { throw .endedKey("was revoked or has expired while the request was prepared") }
        let reservation = prepared.reservedTokenCount
        try state.limiter.reserve(reservation, for: request.caller, at: currentTime)
        let exchange = GenerationExchange(
            prepared, for: request, route: route, reservation: reservation, limits: state.limiter.fields(for: request.caller, at: currentTime),
            meters: metrics.meters(for: prepared.target), created: secondsSince1970(), timedID: identifiers.next(prefix: ""))
        let sink = state.sink ?? EngineSink(self, transport)
        state.sink = sink
        for (index, work) in prepared.requests.enumerated() {
            let sequence = exchange.choices[index].sequence
            var work = work
            work.adapters = adapters
            do throws(InferenceError) {
                try service.submit(work, as: sequence, to: sink)
            } catch {
                for submitted in exchange.choices.prefix(index) {
                    service.cancel(submitted.sequence)
                    state.sequences[submitted.sequence] = nil
                }
                state.limiter.settle(reserved: reservation, used: 0, for: request.caller, at: currentTime)
                if error.code == .internalFailure { logFailure(error, exchange) }
                let refusal = APIError(error, param: route == .chat ? "messages" : "prompt")
                metrics.adapters.count(prepared.target, status: refusal.status.code)
                throw refusal
            }
            state.sequences[sequence] = (exchange, index)
        }
        state.exchanges[request.exchange] = exchange
    }

    /// Takes what happened in one engine step.
    package func receive(_ events: [GenerationEvent], on transport: isolated Transport) {
        let state = state.on(transport)
        let time = currentTime
        var touched: [GenerationExchange] = []
        for event in events {
            // Events of a sequence that was cancelled meanwhile find nobody.
            guard let (exchange, choice) = state.sequences[event.sequence] else { continue }
            if exchange.backlog == nil {
                take(event.kind, for: exchange, choice: choice, at: time, on: transport)
            } else {
                exchange.backlog?.append((event.kind, choice))
            }
            if !exchange.isTouched {
                exchange.isTouched = true
                touched.append(exchange)
            }
        }
        for exchange in touched {
            exchange.isTouched = false
            flush(exchange, on: transport, at: time)
        }
    }

    private func take(
        _ kind: GenerationEvent.Kind, for exchange: GenerationExchange, choice: Int, at time: ContinuousClock.Instant,
        on transport: isolated Transport
    ) {
        if let write = exchange.promptLogprobsToWriteElsewhere(kind, choice: choice, threshold: configuration.inlineLogprobs),
            writeElsewhere(write, for: exchange, choice: choice, on: transport)
        {
            exchange.backlog = []
            return
        }
        if case .failed(let error) = kind { logFailure(error, exchange) }
        if exchange.receive(kind, choice: choice, now: time) {
            state.on(transport).sequences[exchange.choices[choice].sequence] = nil
        }
    }

    /// False when the threads have too much to do already.
    private func writeElsewhere(
        _ write: @escaping @Sendable () -> CompletionLogprobs, for exchange: GenerationExchange, choice: Int, on transport: isolated Transport
    ) -> Bool {
        let id = exchange.id
        do throws(ExecutorError) {
            try preparationExecutor.submit {
                let logprobs = write()
                transport.post { transport in self.resume(id, with: logprobs, choice: choice, on: transport) }
            }
        } catch {
            return false
        }
        return true
    }

    /// Goes on with an exchange whose log-probabilities are written.
    private func resume(_ id: ExchangeID, with logprobs: CompletionLogprobs, choice: Int, on transport: isolated Transport) {
        guard let exchange = state.on(transport).exchanges[id], let backlog = exchange.backlog else { return }
        let time = currentTime
        exchange.backlog = nil
        exchange.receiveWrittenPromptLogprobs(logprobs, choice: choice)
        for event in backlog {
            if exchange.backlog == nil {
                take(event.kind, for: exchange, choice: event.choice, at: time, on: transport)
            } else {
                exchange.backlog?.append(event)
            }
        }
        flush(exchange, on: transport, at: time)
    }

    /// Carries out what an exchange has to say, and closes its books when it is over.
    func flush(_ exchange: GenerationExchange, on transport: isolated Transport, at time: ContinuousClock.Instant) {
        if let kept = exchange.takeKept() { keep(kept, of: exchange.id, on: transport) }
        let actions = exchange.takeActions(now: time)
        // The books first: a write may report back that the client is gone.
        if let outcome = exchange.outcome, state.on(transport).exchanges[exchange.id] === exchange {
            forget(exchange, on: transport)
            switch outcome {
            case .completed: finishRecord(exchange, status: 200, note: nil)
            case .failed(let error, let afterStart):
                if afterStart { exchange.meters.brokenStreams.increment() }
                finishRecord(exchange, status: afterStart ? 200 : error.status.code, note: error.code)
            }
        }
        for action in actions {
            switch action {
            case .respond(let head, let body): transport.respond(to: exchange.id, head, body: body)
            case .start(let head): transport.startStream(exchange.id, head, keepAlive: configuration.keepAliveInterval)
            case .write(let bytes): transport.write(exchange.id, bytes)
            case .finish: transport.finish(exchange.id)
            }
        }
    }

    /// Keeps what was asked and answered. An exchange that must be kept ends only when it is.
    private func keep(_ kept: KeptExchange, of id: ExchangeID, on transport: isolated Transport) {
        guard let exchanges else { return }
        guard kept.draft.isDurable else { return exchanges.keep(kept) }
        exchanges.keep(kept) { [weak transport] error in
            transport?.post { self.finishKeeping(id, error, on: $0) }
        }
    }

    private func finishKeeping(_ id: ExchangeID, _ error: InstructionStoreError?, on transport: isolated Transport) {
        guard let exchange = state.on(transport).exchanges[id] else { return }
        exchange.finishKeeping(error.map { APIError($0) })
        flush(exchange, on: transport, at: currentTime)
    }

    /// Ends an exchange that may not go on; its client is told.
    func end(_ exchange: GenerationExchange, with error: APIError, on transport: isolated Transport) {
        exchange.fail(error)
        flush(exchange, on: transport, at: currentTime)
    }

    /// Gives up an exchange whose client has gone.
    func abandon(_ exchange: GenerationExchange, on transport: isolated Transport) {
        forget(exchange, on: transport)
        exchange.fail(.shuttingDown)
        _ = exchange.takeActions(now: currentTime)
    }

    /// Strikes an exchange off the books and cancels what the engine still does for it.
    private func forget(_ exchange: GenerationExchange, on transport: isolated Transport) {
        let state = state.on(transport)
        state.exchanges[exchange.id] = nil
        state.limiter.settle(reserved: exchange.reservation, used: exchange.chargedTokenCount, for: exchange.caller, at: currentTime)
        for choice in exchange.choices where state.sequences.removeValue(forKey: choice.sequence) != nil {
            service.cancel(choice.sequence)
        }
    }

    func finishRecord(_ exchange: GenerationExchange, status: Int, note: String?) {
        let usage = exchange.usage
        let duration = (currentTime - exchange.receivedAt).inSeconds
        metrics.count(route: exchange.route.path, status: status, model: exchange.target.label)
        metrics.adapters.count(exchange.target, status: status)
        for adapter in exchange.meters.adapters {
            adapter.promptTokens.increment(by: UInt64(usage.promptTokens))
            adapter.cachedTokens.increment(by: UInt64(usage.cachedTokens))
            adapter.completionTokens.increment(by: UInt64(usage.completionTokens))
        }
        exchange.meters.promptTokens.increment(by: UInt64(usage.promptTokens))
        exchange.meters.cachedTokens.increment(by: UInt64(usage.cachedTokens))
        exchange.meters.completionTokens.increment(by: UInt64(usage.completionTokens))
        exchange.meters.requestDuration.observe(duration)
        logger.info(
            "request",
            metadata: [
                "route": "\(exchange.route.path)", "status": "\(status)", "request_id": "\(exchange.requestID)",
                "model": "\(exchange.target.label)",
                "adapters": "\(exchange.target.parts.map(\.version.qualifiedName).joined(separator: ","))", "ms": "\(Int(duration * 1000))",
                "prompt_tokens": "\(usage.promptTokens)",
                "cached_tokens": "\(usage.cachedTokens)", "completion_tokens": "\(usage.completionTokens)",
                "streamed": "\(exchange.isStreamed)", "note": "\(note ?? "-")",
            ])
    }

    private func logFailure(_ error: InferenceError, _ exchange: GenerationExchange) {
        logger.error("the engine failed on a request", metadata: ["request_id": "\(exchange.requestID)", "cause": "\(error.message)"])
    }
}
