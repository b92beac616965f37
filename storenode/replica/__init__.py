"""The replica: one SQLite file, its one writer, and all that is read from it. Each table has one writing module.

May import storenode.core, storenode.errors and storelink.

| table                                                        | written by                              |
|--------------------------------------------------------------|-----------------------------------------|
| `products`, `prices`, the tables of declared contexts        | writer (write_rows, remove_rows)        |
| `daemon`                                                     | writer                                  |
| `streams`, `unfollowed_streams`, `scopes`                    | streams                                 |
| `contexts`, `shapes`, `<context>_search`                     | contexts                                |
| `overrides`                                                  | overrides (their price lines: writer)   |
| `quarantine`                                                 | quarantine                              |
| `commits`                                                    | provenance                              |
| `clock`                                                      | price_clock                             |
| `product_search`, `search_pending`, `read_models`            | search_index                            |
| views `current_prices`, `catalog`, `freshness`, `price_clock` | schema                                 |
"""
