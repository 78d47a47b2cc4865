import Executors
import HTTPServing
import HTTPTypes
import InstructionStore

/// One client that gets the content of a file. Confined to the server.
///
/// At most one piece is being read, and a client that does not take what it got is not read for: however large the file and however slow the client, this
/// holds one piece beside what the transport holds.
final class ContentStream {
    let request: APIRequest
    /// Set when the content was found and checked; then the head is sent.
    var reader: FileReader?
    /// How many bytes were written.
    var offset = 0
    var isReading = false
    var isCongested = false

    init(_ request: APIRequest) {
        self.request = request
    }

    /// Bytes of one piece.
    static let pieceSize = 128 << 10
}

extension APIHandlers {
    /// `GET /v1/files/{id}/content`.
    func sendContent(_ request: APIRequest, _ id: String, from files: FileStore, on transport: isolated Transport) throws(APIError) {
        let request = request.withoutBody
        let exchange = request.exchange
        let state = state.on(transport)
        guard state.contentStreams.count < configuration.contentStreams else { throw .tooManyDownloads(configuration.contentStreams) }
        state.contentStreams[exchange] = ContentStream(request)
        do throws(APIError) {
            try perform(
                request, route: .fileContent, with: fileWork, on: transport,
                work: { () throws(APIError) in self.openContent(id, in: files, for: request) },
                then: { (handlers: APIHandlers, result: Result<(StoredFile, FileReader), APIError>, transport: isolated Transport) throws(APIError) in
                    let (file, reader): (StoredFile, FileReader)
                    do throws(APIError) {
                        (file, reader) = try result.get()
                    } catch {
                        handlers.state.on(transport).contentStreams[exchange] = nil
                        throw error
                    }
                    var head = HTTPResponse(status: .ok, headerFields: [.contentType: ContentType.bytes])
                    head.headerFields[.contentDisposition] = FileObjects.disposition(file.name)
                    transport.startBody(exchange, head, length: reader.byteCount)
                    // The head may have told that the client is gone.
                    guard let stream = handlers.state.on(transport).contentStreams[exchange] else { return }
                    stream.reader = reader
                    // Who asks with HEAD wants no content.
                    if request.head.method == .head { stream.offset = reader.byteCount }
                    handlers.readOn(stream, on: transport)
                })
        } catch {
            state.contentStreams[exchange] = nil
            throw error
        }
    }

    /// Blocking.
    private func openContent(_ id: String, in files: FileStore, for request: APIRequest) -> Result<(StoredFile, FileReader), APIError> {
        Result { () throws(APIError) in
            let file = try find(id, in: files, for: request)
            return (file, try stored(request.requestID) { () throws(InstructionStoreError) in try files.reader(of: file) })
        }
    }

    private func readOn(_ stream: ContentStream, on transport: isolated Transport) {
        guard let reader = stream.reader, !stream.isReading, !stream.isCongested else { return }
        let (exchange, offset, requestID) = (stream.request.exchange, stream.offset, stream.request.requestID)
        guard offset < reader.byteCount else {
            close(stream, code: nil, on: transport)
            return transport.finish(exchange)
        }
        stream.isReading = true
        do throws(ExecutorError) {
            try contentReads.submit {
                let piece = Result { () throws(APIError) in
                    try self.stored(requestID) { () throws(InstructionStoreError) in try reader.read(at: offset, count: ContentStream.pieceSize) }
                }
                transport.post { transport in
                    guard let stream = self.state.on(transport).contentStreams[exchange] else { return }
                    switch piece {
                    case .success(let bytes): self.deliver(bytes, to: stream, on: transport)
                    case .failure(let error): self.fail(stream, error, on: transport)
                    }
                }
            }
        } catch {
            fail(stream, APIError(error), on: transport)
        }
    }

    private func deliver(_ bytes: [UInt8], to stream: ContentStream, on transport: isolated Transport) {
        let exchange = stream.request.exchange
        stream.isReading = false
        stream.offset += bytes.count
        transport.write(exchange, bytes)
        // The write may have told that the client is gone.
        guard state.on(transport).contentStreams[exchange] === stream else { return }
        readOn(stream, on: transport)
    }

    /// The rest cannot be had, or not by this client. The status is sent, so a connection that breaks is the only way to say so.
    func fail(_ stream: ContentStream, _ error: APIError, on transport: isolated Transport) {
        close(stream, code: error.code, on: transport)
        transport.abort(stream.request.exchange)
    }

    private func close(_ stream: ContentStream, code: String?, on transport: isolated Transport) {
        state.on(transport).contentStreams[stream.request.exchange] = nil
        record(route: .fileContent, status: 200, model: "", request: stream.request, code: code)
    }

    /// The client of a stream went away.
    func abandonContentStream(_ exchange: ExchangeID, on transport: isolated Transport) {
        let state = state.on(transport)
        guard let stream = state.contentStreams.removeValue(forKey: exchange) else { return }
        // One that had not begun is counted with the requests that were under way.
        if state.preparing[exchange] == nil { record(route: .fileContent, status: 200, model: "", request: stream.request, code: "client_closed") }
    }

    func setContentStream(_ exchange: ExchangeID, congested isCongested: Bool, on transport: isolated Transport) {
        guard let stream = state.on(transport).contentStreams[exchange] else { return }
        stream.isCongested = isCongested
        readOn(stream, on: transport)
    }
}
