import InstructionStore

/// What a request needs to be let in to a route, on a server with keys.
package enum RouteAccess: Sendable, Equatable {
    /// Nothing: machines ask for the server's health, and learn nothing else.
    case open
    /// Any key.
    case anyKey
    /// A key with this scope.
    case scope(KeyScope)
}

extension APIRoute {
    /// Every route is listed, and there is no default: a new one does not compile until somebody has thought about who may use it.
    package var access: RouteAccess {
        switch self {
        case .livez, .readyz, .health: .open
        case .version, .openAPI, .models, .model: .anyKey
        case .chat, .completions, .tokenize, .detokenize, .feedback, .adapters, .adapter, .adapterVersions, .globalLoRA: .scope(.infer)
        case .createFile, .files, .file, .fileContent, .deleteFile, .keptChats, .keptChat, .changeKeptChat, .deleteKeptChat, .deleteKeptChats,
            .keptMessages, .datasetFromLogs:
            .scope(.files)
        case .createJob, .jobs, .job, .cancelJob, .pauseJob, .resumeJob, .jobEvents, .jobCheckpoints, .createAdapter, .promoteAdapter, .rollbackAdapter,
            .exportAdapter, .deleteAdapter, .deleteModel:
            .scope(.train)
        // A pinned adapter takes memory from everybody's, and the paths are the operator's own.
        case .pinAdapter, .loadLoRA, .unloadLoRA, .setGlobalLoRA, .metrics, .createKey, .keys, .key, .revokeKey: .scope(.admin)
        }
    }

    /// Whether the route generates, so that the limits of keys hold for it.
    var isGeneration: Bool { self == .chat || self == .completions }
}
