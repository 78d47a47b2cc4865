import HTTPServing
import HTTPTypes
import InstructionStore
import JSON

extension APIHandlers {
    // MARK: - Letting in

    /// Who sends a request, if he may. Asked when the head has come, and again when the body has: a key may end in between.
    /// - Parameters:
    ///   - route: `nil` for what is no route. That is told only to those who have a key, but for another method on a path that is open to all.
    ///   - path: of the request.
    func authorize(_ head: HTTPRequest, _ route: APIRoute?, path: String) throws(APIError) -> Caller {
        let access = route?.access ?? (isOpen(path) ? .open : .anyKey)
        if access == .open { return .nobody }
        let caller = try keys.caller(head.headerFields[.authorization])
        if case .scope(let scope) = access, !caller.scopes.contains(scope) { throw .missingScope(scope) }
        return caller
    }

    private func isOpen(_ path: String) -> Bool {
        if case .found(let route, _) = router.match(.get, path) { route.access == .open } else { false }
    }

    /// Ends what runs for keys that were revoked or have expired, each with its error. The server calls it several times a second.
    package func endUnauthorized(on transport: isolated Transport) {
        guard keys.isRequired else { return }
        let state = state.on(transport)
        for exchange in Array(state.exchanges.values) where !keys.isStillLetIn(exchange.caller) {
            end(exchange, with: .endedKey("was revoked or has expired while the answer was made"), on: transport)
        }
        for stream in Array(state.jobStreams.values) where !keys.isStillLetIn(stream.request.caller) && state.preparing[stream.exchange] == nil {
            fail(stream, .endedKey("was revoked or has expired while the events were sent"), on: transport)
        }
        for stream in Array(state.contentStreams.values) where stream.reader != nil && !keys.isStillLetIn(stream.request.caller) {
            fail(stream, .endedKey("was revoked or has expired while the file was sent"), on: transport)
        }
    }

    // MARK: - Managing

    /// Everything below `/v1/organization/admin_api_keys`.
    func serveKeys(_ request: APIRequest, route: APIRoute, id: String, on transport: isolated Transport) throws(APIError) {
        switch route {
        case .createKey:
            try requireJSON(request)
            let wanted = try KeyRequest(try preparation.object(request.body.joined()))
            try changeObject(request, route: route, action: "key.create", with: storeWork, on: transport) { handlers, subject throws(APIError) in
                var grant = wanted.grant
                grant.expiresAt = handlers.keys.end(after: wanted.lifetime)
                let made = try handlers.stored(request.requestID) { () throws(InstructionStoreError) in try handlers.keys.create(grant) }
                subject = made.key.objectID
                return ChangeAnswer(.object(KeyObjects.key(made.key, lastUse: nil, value: made.text)), ignored: wanted.ignored)
            }
        case .keys:
            let query = QueryFields(request)
            let limit = try query.integer("limit", in: 1...1000) ?? 20
            let isAscending = try query.isAscending(otherwise: true)
            var found = keys.list()
            if !isAscending { found.reverse() }
            if let after = try query.cursor(isValid: { id in found.contains { $0.key.objectID == id } }) {
                found.removeFirst(1 + (found.firstIndex { $0.key.objectID == after } ?? -1))
            }
            let page = found.prefix(limit).map { KeyObjects.key($0.key, lastUse: $0.lastUse) }
            answer(request, route: route, FileObjects.list(page, hasMore: found.count > limit), on: transport)
        case .key:
            guard let found = keys.list().first(where: { $0.key.objectID == id }) else { throw .keyNotFound(id) }
            answer(request, route: route, .object(KeyObjects.key(found.key, lastUse: found.lastUse)), on: transport)
        case .revokeKey:
            try changeObject(request, route: route, action: "key.revoke", subject: id, with: storeWork, on: transport) { handlers, _ throws(APIError) in
                let revoked = try handlers.stored(request.requestID) { () throws(InstructionStoreError) in try handlers.keys.revoke(id) }
                guard revoked != nil else { throw .keyNotFound(id) }
                return ChangeAnswer(["object": "organization.admin_api_key.deleted", "id": .string(id), "deleted": true])
            }
        default:
            preconditionFailure("\(route) is not below /v1/organization/admin_api_keys")
        }
    }
}
