import HTTPServing
import HTTPTypes

/// What can be asked of the server: one method of one path.
package enum APIRoute: Sendable, CaseIterable {
    case chat, completions
    case models, model, deleteModel
    case createAdapter, adapters, adapter, adapterVersions, promoteAdapter, rollbackAdapter, pinAdapter, exportAdapter, deleteAdapter
    case loadLoRA, unloadLoRA
    case globalLoRA, setGlobalLoRA
    case createFile, files, file, fileContent, deleteFile
    case keptChats, keptChat, changeKeptChat, deleteKeptChat, deleteKeptChats, keptMessages
    case feedback, datasetFromLogs
    case createJob, jobs, job, cancelJob, pauseJob, resumeJob, jobEvents, jobCheckpoints
    case tokenize, detokenize
    case createKey, keys, key, revokeKey
    case livez, readyz, health, version, metrics, openAPI

    /// The path's pattern, which metrics and the log use as a label.
    package var path: String {
        switch self {
        case .chat, .keptChats, .deleteKeptChats: "/v1/chat/completions"
        case .keptChat, .changeKeptChat, .deleteKeptChat: "/v1/chat/completions/{id}"
        case .keptMessages: "/v1/chat/completions/{id}/messages"
        case .feedback: "/v1/feedback"
        case .datasetFromLogs: "/v1/datasets/from_logs"
        case .createFile, .files: "/v1/files"
        case .file, .deleteFile: "/v1/files/{id}"
        case .fileContent: "/v1/files/{id}/content"
        case .completions: "/v1/completions"
        case .models: "/v1/models"
        case .model, .deleteModel: "/v1/models/{id}"
        case .createAdapter, .adapters: "/v1/adapters"
        case .adapter, .deleteAdapter: "/v1/adapters/{id}"
        case .adapterVersions: "/v1/adapters/{id}/versions"
        case .promoteAdapter: "/v1/adapters/{id}/promote"
        case .rollbackAdapter: "/v1/adapters/{id}/rollback"
        case .pinAdapter: "/v1/adapters/{id}/pin"
        case .exportAdapter: "/v1/adapters/{id}/export"
        case .loadLoRA: "/v1/load_lora_adapter"
        case .unloadLoRA: "/v1/unload_lora_adapter"
        case .globalLoRA, .setGlobalLoRA: "/lora-adapters"
        case .createJob, .jobs: "/v1/fine_tuning/jobs"
        case .job: "/v1/fine_tuning/jobs/{id}"
        case .cancelJob: "/v1/fine_tuning/jobs/{id}/cancel"
        case .pauseJob: "/v1/fine_tuning/jobs/{id}/pause"
        case .resumeJob: "/v1/fine_tuning/jobs/{id}/resume"
        case .jobEvents: "/v1/fine_tuning/jobs/{id}/events"
        case .jobCheckpoints: "/v1/fine_tuning/jobs/{id}/checkpoints"
        case .createKey, .keys: "/v1/organization/admin_api_keys"
        case .key, .revokeKey: "/v1/organization/admin_api_keys/{id}"
        case .tokenize: "/tokenize"
        case .detokenize: "/detokenize"
        case .livez: "/livez"
        case .readyz: "/readyz"
        case .health: "/health"
        case .version: "/version"
        case .metrics: "/metrics"
        case .openAPI: "/openapi.json"
        }
    }

    package var method: HTTPRequest.Method {
        switch self {
        case .chat, .completions, .tokenize, .detokenize, .createAdapter, .promoteAdapter, .rollbackAdapter, .pinAdapter, .loadLoRA, .unloadLoRA,
            .setGlobalLoRA, .createFile, .changeKeptChat, .feedback, .datasetFromLogs, .createJob, .cancelJob, .pauseJob, .resumeJob, .createKey:
            .post
        case .deleteModel, .deleteAdapter, .deleteFile, .deleteKeptChat, .deleteKeptChats, .revokeKey: .delete
        default: .get
        }
    }

    /// Asked for by machines every few seconds: logged only when somebody debugs.
    var isProbe: Bool {
        switch self {
        case .livez, .readyz, .health, .metrics: true
        default: false
        }
    }

    /// A change of adapters that is told in a few words of JSON.
    var isAdapterCommand: Bool {
        switch self {
        case .promoteAdapter, .rollbackAdapter, .pinAdapter, .loadLoRA, .unloadLoRA, .setGlobalLoRA: true
        default: false
        }
    }

    static func router() -> Router<APIRoute> {
        var router = Router<APIRoute>()
        for route in allCases { router.add(route.method, route.path, route) }
        return router
    }
}
