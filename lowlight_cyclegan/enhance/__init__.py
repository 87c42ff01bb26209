"""The application: photos, folders, video and a page in the browser, brightened by trained generators."""
