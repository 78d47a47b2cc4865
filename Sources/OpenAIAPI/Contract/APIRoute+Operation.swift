extension APIRoute {
    /// What the API's description says of this route.
    var operation: Operation {
        switch self {
        case .chat: GenerationOperations.chat
        case .completions: GenerationOperations.completion
        case .models: GenerationOperations.models
        case .model: GenerationOperations.model
        case .deleteModel: GenerationOperations.deleteModel
        case .tokenize: GenerationOperations.tokenize
        case .detokenize: GenerationOperations.detokenize
        case .createAdapter: AdapterOperations.create
        case .adapters: AdapterOperations.list
        case .adapter: AdapterOperations.retrieve
        case .adapterVersions: AdapterOperations.versions
        case .promoteAdapter: AdapterOperations.promote
        case .rollbackAdapter: AdapterOperations.rollback
        case .pinAdapter: AdapterOperations.pin
        case .exportAdapter: AdapterOperations.export
        case .deleteAdapter: AdapterOperations.delete
        case .loadLoRA: AdapterOperations.load
        case .unloadLoRA: AdapterOperations.unload
        case .globalLoRA: AdapterOperations.global
        case .setGlobalLoRA: AdapterOperations.setGlobal
        case .createFile: FileOperations.create
        case .files: FileOperations.list
        case .file: FileOperations.retrieve
        case .fileContent: FileOperations.content
        case .deleteFile: FileOperations.delete
        case .keptChats: ExchangeOperations.list
        case .keptChat: ExchangeOperations.retrieve
        case .changeKeptChat: ExchangeOperations.change
        case .deleteKeptChat: ExchangeOperations.delete
        case .deleteKeptChats: ExchangeOperations.deleteOfUser
        case .keptMessages: ExchangeOperations.messages
        case .feedback: ExchangeOperations.feedback
        case .datasetFromLogs: ExchangeOperations.dataset
        case .createJob: JobOperations.create
        case .jobs: JobOperations.list
        case .job: JobOperations.retrieve
        case .cancelJob: JobOperations.cancel
        case .pauseJob: JobOperations.pause
        case .resumeJob: JobOperations.resume
        case .jobEvents: JobOperations.events
        case .jobCheckpoints: JobOperations.checkpoints
        case .createKey: KeyOperations.create
        case .keys: KeyOperations.list
        case .key: KeyOperations.retrieve
        case .revokeKey: KeyOperations.revoke
        case .livez: ServerOperations.livez
        case .readyz: ServerOperations.readyz
        case .health: ServerOperations.health
        case .version: ServerOperations.version
        case .metrics: ServerOperations.metrics
        case .openAPI: ServerOperations.description
        }
    }

    /// Whether the route is answered without a key, on a server that wants keys.
    var isOpen: Bool { access == .open }
}
