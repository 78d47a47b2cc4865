import Executors
import HTTPServing
import HTTPTypes
import Tuning

/// One client that follows a job's events. Confined to the server.
///
/// It reads in pieces: at most one reading is under way, news that come meanwhile are noted, and a client that does not take what it got is not read for.
final class JobStream {
    let exchange: ExchangeID
    let job: String
    let request: APIRequest
    /// The number of the last event that was written.
    var cursor: Int
    var isReading = false
    var hasNews = false
    var isCongested = false
    /// Lives as long as the stream.
    var observation: JobObservation?

    init(_ request: APIRequest, job: String, after cursor: Int) {
        exchange = request.exchange
        self.request = request
        self.job = job
        self.cursor = cursor
    }

    /// Events of one reading.
    static let pageLimit = 200
}

extension APIHandlers {
    /// `GET /v1/fine_tuning/jobs/{id}/events?stream=true`: what there is, then what comes, until the job ends.
    func follow(_ request: APIRequest, job id: String, after: Int, _ tuning: any TuningService, on transport: isolated Transport) throws(APIError) {
        if isDraining { throw .shuttingDown }
        let request = request.withoutBody
        let stream = JobStream(request, job: id, after: after)
        let exchange = request.exchange
        // Before the first look, so that nothing falls between the two.
        stream.observation = tuning.observe(id) { [weak self, weak transport] in
            guard let self, let transport else { return }
            transport.post { transport in self.noteNews(exchange, on: transport) }
        }
        let (requestID, owner) = (request.requestID, request.caller.owner)
        state.on(transport).jobStreams[exchange] = stream
        do throws(APIError) {
            try perform(
                request, route: .jobEvents, with: tuningCalls, on: transport,
                work: { () throws(APIError) in self.readNews(of: id, owner: owner, after: after, tuning, requestID) },
                then: { (handlers: APIHandlers, result: Result<JobNews, APIError>, transport: isolated Transport) throws(APIError) in
                    let news: JobNews
                    do throws(APIError) {
                        news = try result.get()
                    } catch {
                        handlers.state.on(transport).jobStreams[exchange] = nil
                        throw error
                    }
                    var head = HTTPResponse(status: .ok, headerFields: [.contentType: ContentType.eventStream])
                    head.headerFields[.cacheControl] = "no-cache"
                    head.headerFields[.accelBuffering] = "no"
                    transport.startStream(exchange, head, keepAlive: handlers.configuration.keepAliveInterval)
                    guard let stream = handlers.state.on(transport).jobStreams[exchange] else { return }
                    stream.isReading = true
                    handlers.deliver(news, to: stream, on: transport)
                })
        } catch {
            state.on(transport).jobStreams[exchange] = nil
            throw error
        }
    }

    /// Blocking.
    private func readNews(of id: String, owner: String, after cursor: Int, _ tuning: any TuningService, _ requestID: String) -> Result<JobNews, APIError> {
        Result { () throws(APIError) in
            try tuned(requestID) { () throws(TuningError) in try tuning.news(of: id, owner: owner, after: cursor, limit: JobStream.pageLimit) }
        }
    }

    private func noteNews(_ exchange: ExchangeID, on transport: isolated Transport) {
        let state = state.on(transport)
        guard let stream = state.jobStreams[exchange] else { return }
        stream.hasNews = true
        // Its head is still to come.
        guard state.preparing[exchange] == nil else { return }
        if isDraining { return end(stream, on: transport) }
        readOn(stream, on: transport)
    }

    private func readOn(_ stream: JobStream, on transport: isolated Transport) {
        guard let tuning, stream.hasNews, !stream.isReading, !stream.isCongested else { return }
        stream.hasNews = false
        stream.isReading = true
        let (exchange, id, cursor, requestID) = (stream.exchange, stream.job, stream.cursor, stream.request.requestID)
        let owner = stream.request.caller.owner
        do throws(ExecutorError) {
            try tuningCalls.submit {
                let news = self.readNews(of: id, owner: owner, after: cursor, tuning, requestID)
                transport.post { transport in
                    guard let stream = self.state.on(transport).jobStreams[exchange] else { return }
                    switch news {
                    case .success(let news): self.deliver(news, to: stream, on: transport)
                    case .failure(let error): self.fail(stream, error, on: transport)
                    }
                }
            }
        } catch {
            fail(stream, APIError(error), on: transport)
        }
    }

    /// Writes what was read, and goes on if there may be more.
    private func deliver(_ news: JobNews, to stream: JobStream, on transport: isolated Transport) {
        stream.isReading = false
        var bytes: [UInt8] = []
        for event in news.events {
            bytes.append("data: ")
            JobObjects.event(event).appendSerialized(to: &bytes)
            bytes.append("\n\n")
            stream.cursor = event.number
        }
        if news.events.count >= JobStream.pageLimit { stream.hasNews = true }
        if !bytes.isEmpty { transport.write(stream.exchange, bytes) }
        // The write may have told that the client is gone.
        guard state.on(transport).jobStreams[stream.exchange] === stream else { return }
        if news.isOver || isDraining { return end(stream, on: transport) }
        readOn(stream, on: transport)
    }

    /// The job ended, or the server does: the client asks again for what comes after its last event.
    private func end(_ stream: JobStream, on transport: isolated Transport) {
        close(stream, status: 200, on: transport)
        transport.write(stream.exchange, Array("data: [DONE]\n\n".utf8))
        transport.finish(stream.exchange)
    }

    func fail(_ stream: JobStream, _ error: APIError, on transport: isolated Transport) {
        close(stream, status: 200, code: error.code, on: transport)
        var bytes: [UInt8] = []
        bytes.append("data: {\"error\":")
        error.appendObject(to: &bytes)
        bytes.append("}\n\n")
        transport.write(stream.exchange, bytes)
        transport.finish(stream.exchange)
    }

    private func close(_ stream: JobStream, status: Int, code: String? = nil, on transport: isolated Transport) {
        state.on(transport).jobStreams[stream.exchange] = nil
        record(route: .jobEvents, status: status, model: "", request: stream.request, code: code)
    }

    /// The client of a stream went away.
    func abandonJobStream(_ exchange: ExchangeID, on transport: isolated Transport) {
        let state = state.on(transport)
        guard let stream = state.jobStreams.removeValue(forKey: exchange) else { return }
        // One that had not begun is counted with the requests that were under way.
        if state.preparing[exchange] == nil { record(route: .jobEvents, status: 200, model: "", request: stream.request, code: "client_closed") }
    }

    func setJobStream(_ exchange: ExchangeID, congested isCongested: Bool, on transport: isolated Transport) {
        guard let stream = state.on(transport).jobStreams[exchange] else { return }
        stream.isCongested = isCongested
        if state.on(transport).preparing[exchange] == nil { readOn(stream, on: transport) }
    }
}
