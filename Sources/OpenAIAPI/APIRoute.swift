import HTTPServing
import HTTPTypes

/// What can be asked of the server. The raw value is the path's pattern, which metrics use as a label.
package enum APIRoute: String, Sendable, CaseIterable {
    case chat = "/v1/chat/completions"
    case completions = "/v1/completions"
    case models = "/v1/models"
    case model = "/v1/models/{id}"
    case tokenize = "/tokenize"
    case detokenize = "/detokenize"
    case livez = "/livez"
    case readyz = "/readyz"
    case health = "/health"
    case version = "/version"
    case metrics = "/metrics"

    var method: HTTPRequest.Method {
        switch self {
        case .chat, .completions, .tokenize, .detokenize: .post
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

    static func router() -> Router<APIRoute> {
        var router = Router<APIRoute>()
        for route in allCases { router.add(route.method, route.rawValue, route) }
        return router
    }
}
